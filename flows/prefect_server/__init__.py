"""The Prefect server of this user, and what is set up there: login, deployments, alarms, events, `regraft serve`."""
