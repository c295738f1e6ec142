"""What lives inside a rank: the takeover of ``torch.distributed``. See docs/internals/runtime.md.

Everything here runs in the job's own interpreter (Python 3.9 or newer, torch 2.4 or newer) and imports the
standard library, torch and ``mailbox``, always by relative imports: in a job the folder is loaded under a
private name.
"""
