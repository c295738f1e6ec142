"""The regions' vaults: what is archived, brought from elsewhere, kept and forked."""
