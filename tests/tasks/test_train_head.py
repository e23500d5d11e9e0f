from regraft.core.files import read_json, sha256_of
from regraft.training import heads
from regraft.training.network_file import read_head
from tasks.train_head import train_head
from tests.support.small_project import changed, quiet


def test_the_same_features_params_and_seed_give_the_same_bytes(project, small_params):
    before = sha256_of(project / "models" / "head.npz")
    train_head.function(small_params, quiet)
    assert sha256_of(project / "models" / "head.npz") == before
    assert read_json(project / "reports" / "head.json")["best_epoch"] >= 1  # 0 would be a head of zeros


def test_another_seed_gives_another_classic_head(project, small_params, monkeypatch):
    monkeypatch.setattr(heads, "MAX_EPOCHS", 1)
    digests = set()
    for seed in (0, 1):
        classic = changed(small_params, train_head={"kind": "classic"}).model_copy(update={"seed": seed})
        train_head.function(classic, quiet)
        digests.add(sha256_of(project / "models" / "head.npz"))
    shapes = [weight.shape for weight in read_head(project / "models" / "head.npz").weights]
    assert (len(digests), shapes) == (2, [(1280, 1024), (1024,), (1024, 3), (3,)])
