"""The four goals, a module each. Each is a row of bounded steps with a rollback; `base` frames them."""
