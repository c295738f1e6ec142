"""The service around engine and policy: persists, talks to agents, performs effects. See README.md."""
