"""`midstep vault ls | du | check | gc | cp | rm`: what is in the archives of a fleet's regions, or in any
other."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from midstep.cli import options

vault = typer.Typer(no_args_is_help=True, help="Look after archived snapshots: list, check, collect, copy.")

Region = Annotated[str | None, typer.Option("--region", help="Only of this region.", show_default="all")]
Url = Annotated[
    str | None,
    typer.Option("--vault", help="An archive's folder or URL (s3://, gs://, az://), in place of a fleet's."),
]
Key = Annotated[
    Path | None,
    typer.Option("--key-file", help="The key of an encrypted one; else MIDSTEP_VAULT_KEY[_FILE] says."),
]
Snapshot = Annotated[str, typer.Argument(help="A snapshot's id, as `midstep vault ls` shows it.")]


@vault.command()
def ls(
    job: Annotated[str | None, typer.Option("--job", help="Only of this job (its id).")] = None,
    region: Region = None,
    url: Url = None,
    key_file: Key = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """List snapshots: when and why they were taken, their size, what of it was new."""
    hand_over("ls", state, region, url, key_file, as_json, job=job)


@vault.command()
def du(
    region: Region = None,
    url: Url = None,
    key_file: Key = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Say what the space is used for, by job, and what is of no use any more."""
    hand_over("du", state, region, url, key_file, as_json)


@vault.command()
def check(
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every byte.")] = False,
    repair: Annotated[
        bool, typer.Option("--mend", help="First take what is damaged out, so that it is stored anew.")
    ] = False,
    region: Region = None,
    url: Url = None,
    key_file: Key = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Look for damage, and name the snapshots that it hurts. Exit code 10: there is some."""
    hand_over("check", state, region, url, key_file, as_json, deep=deep, repair=repair)


@vault.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    region: Region = None,
    url: Url = None,
    key_file: Key = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Remove what no snapshot needs. A fleet does it by itself when it is worth it."""
    hand_over("gc", state, region, url, key_file, as_json, dry_run=dry_run)


@vault.command()
def cp(
    snapshot: Snapshot,
    to: Annotated[str, typer.Argument(metavar="TO_URL", help="The other archive; made if there is none.")],
    to_key_file: Annotated[Path | None, typer.Option("--to-key-file", help="The other one's key.")] = None,
    region: Region = None,
    url: Url = None,
    key_file: Key = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Copy a snapshot to another archive; only what that lacks travels."""
    other = str(to_key_file) if to_key_file else None
    hand_over("cp", state, region, url, key_file, as_json, snapshot=snapshot, to=to, to_key_file=other)


@vault.command()
def rm(
    snapshot: Snapshot,
    force: Annotated[bool, typer.Option("--force", help="Even if it is its job's newest one.")] = False,
    region: Region = None,
    url: Url = None,
    key_file: Key = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Forget an archived snapshot, be it readable or not; `gc` then frees its space."""
    hand_over("rm", state, region, url, key_file, as_json, snapshot=snapshot, force=force)


def hand_over(
    verb: str,
    state: Path | None,
    region: str | None,
    url: str | None,
    key_file: Path | None,
    as_json: bool,
    **chosen: object,
) -> NoReturn:
    """Become the program that reads vaults: the command line knows only how to talk to a fleet."""
    common = {
        "state": str(state) if state else None,
        "region": region,
        "vault": url,
        "key_file": str(key_file) if key_file else None,
        "as_json": as_json,
    }
    argv = [sys.executable, "-m", "midstep.app.vault", verb, json.dumps({**common, **chosen})]
    sys.stdout.flush()
    os.execv(sys.executable, [*argv, "--json"] if as_json else argv)
