"""`regraft score`: the model in production names what is on photos without labels."""


def score() -> None:
    """Ask the model in production about new photos.

    They are those that score.photos in params.yaml names; what was said of a photo before is not computed again. The
    table is score.output, and reports/scores.html says whether the photos are like those in production's training.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("score"):
        root = enter_project()
        from flows.nothing_new import end_scoring_early

        # As for `retrain`: Prefect's import takes longer than to see that nothing is to be done.
        if outcome := end_scoring_early(root):
            print(f"\n{outcome.name}: {outcome.message}")
            return
        from flows.run import start
        from flows.score import score as flow

        start(flow)
