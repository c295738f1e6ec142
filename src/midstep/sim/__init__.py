"""Replays traces of jobs in virtual time.

trace.py     jobs; tables.py: columns of files, schema.py: our form of a trace, formats.py: the public ones
fleet.py     nodes; fleetfile.py reads FLEET.yaml
policy.py    what a policy is told and what it may order: SimPolicy
core.py      the events, in exact whole seconds; books.py who has what; record.py what becomes of each job;
             outcome.py what a run is made under and what comes out; watch.py what idles while a job would fit
costs.py     of stopping and moving, stated or measured; failures.py nodes that fail; yamlfile.py their files
pool.py      placing whole devices, consolidated; shares.py: parts of devices too, random and best fit;
             rooms.py: what is free there; fragments.py: FGD
rivals/      policies to compare with, one small file each; catalogue.py finds them by name
metrics.py   figures of a run; guarantees.py were they kept; columns.py, report.py and charts.py show them;
             sweep.py makes many runs
"""
