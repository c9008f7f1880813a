"""The stage loop, its messages and its buses: knows no model, no stage and no browser."""
