"""What `midstep vault ...` becomes: ``python -m midstep.app.vault VERB JSON``. Works on the folders and
buckets themselves, so it needs no running fleet."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midstep.cli.exits import Exit, UsageError, guarded
from midstep.cli.output import clock, columns, print_json, print_table, say, size
from midstep.substrate.local.paths import StatePaths
from midstep.vault.archive import gc
from midstep.vault.archive.archive import Archive, job_of
from midstep.vault.archive.check import Grade, check
from midstep.vault.archive.copying import copy
from midstep.vault.archive.mend import mend
from midstep.vault.archive.usage import usage
from midstep.vault.errors import SnapshotMissing
from midstep.vault.places import Place, open_archive
from midstep.vault.snapshots import Snapshots

Report = Callable[[int, int], None]
Named = tuple[str, Archive]


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """Which archives a command is about."""

    state: str | None = None
    region: str | None = None
    vault: str | None = None
    key_file: str | None = None
    as_json: bool = False


def ls(chosen: Chosen, job: str | None) -> int:
    """Snapshots: archived ones, and raw ones that are not yet."""
    rows: list[dict[str, Any]] = []
    for region, archive in archives(chosen):
        for it in archive.snapshots(job):
            sizes = {"nbytes": it.nbytes, "new_bytes": it.new_bytes, "stored_bytes": it.stored_bytes}
            row = {"snapshot": it.snapshot_id, "job": it.job_id, "region": region, "epoch": it.manifest.epoch}
            rows.append({**row, **sizes, "created_s": it.created_s, "reason": it.reason, "archived": True})
    archived = {(row["region"], row["snapshot"]) for row in rows}
    for region, vault in raw_vaults(chosen):
        for it in vault.committed():
            if (region, it.snapshot_id) not in archived and job in (None, it.job_id):
                row = {"snapshot": it.snapshot_id, "job": it.job_id, "region": region, "epoch": it.epoch}
                rows.append({**row, "nbytes": it.nbytes, "new_bytes": None, "stored_bytes": None,
                             "created_s": None, "reason": "", "archived": False})  # fmt: skip
    if chosen.as_json:
        print_json(rows)
        return 0
    heads = columns("Snapshot", "Region", "Taken", "Reason", ">Size", ">New", ">Stored", "Archived")
    print_table(heads, [
        (r["snapshot"], r["region"], clock(r["created_s"]), r["reason"], size(r["nbytes"]),
         size(r["new_bytes"]), size(r["stored_bytes"]), "yes" if r["archived"] else "not yet")
        for r in rows
    ])  # fmt: skip
    return 0


def du(chosen: Chosen) -> int:
    """What the space is used for."""
    found = {region: usage(archive) for region, archive in archives(chosen)}
    if chosen.as_json:
        print_json({region: dataclasses.asdict(it) for region, it in found.items()})
        return 0
    heads = columns("Region", "Job", ">Snapshots", ">As files", ">Stored", ">Of its own")
    rows = [
        (
            region,
            job.job_id,
            str(job.snapshots),
            size(job.nbytes),
            size(job.stored_bytes),
            size(job.own_bytes),
        )
        for region, it in found.items()
        for job in it.jobs
    ]
    print_table(heads, rows)
    for region, it in found.items():
        words = f"packs {size(it.pack_bytes)}, of them not needed {size(it.dead_bytes)}"
        say(f"{region}: {words}; indexes and manifests {size(it.other_bytes)}; as files {size(it.nbytes)}")
    return 0


def check_all(chosen: Chosen, deep: bool, repair: bool) -> int:
    """Say what is wrong. Exit code 10: something is damaged."""
    found: list[dict[str, Any]] = []
    for region, archive in archives(chosen):
        if repair:
            with bar(f"Mending {region}", chosen.as_json) as report:
                for pack in mend(archive, progress=report):
                    say(f"{region}: {pack.pack} is replaced; {pack.lost} chunks in it were damaged")
        with bar(f"Checking {region}", chosen.as_json) as report:
            found += [{"region": region, **dataclasses.asdict(it)} for it in check(archive, deep, report)]
    damage = [it for it in found if it["grade"] == Grade.DAMAGE]
    if chosen.as_json:
        print_json(found)
    else:
        if found:
            heads = columns("Region", "Grade", "Object", "What", "Snapshots hurt")
            rows = [
                (it["region"], it["grade"], it["object"], it["what"], " ".join(it["snapshots"]))
                for it in found
            ]
            print_table(heads, rows)
        hurt = sorted({name for it in damage for name in it["snapshots"]})
        words = f"{len(damage)} things are damaged" if damage else "nothing is damaged"
        lost = f"; these snapshots cannot be restored: {', '.join(hurt)}" if hurt else ""
        say(words + lost + ("" if deep else "; --deep reads every byte"))
    return Exit.DAMAGED if damage else Exit.OK


def collect(chosen: Chosen, dry_run: bool) -> int:
    """Plan, show, execute."""
    answers: list[dict[str, Any]] = []
    for region, archive in archives(chosen):
        planned = gc.plan(archive)
        answer: dict[str, Any] = {"region": region, "plan": dataclasses.asdict(planned)}
        if not chosen.as_json:
            words = f"{size(planned.dead_bytes)} of {size(planned.total_bytes)} are of no snapshot"
            doomed = len(planned.drop) + len(planned.orphans)
            packs = (
                f"{doomed} packs go, {len(planned.repack)} are repacked: frees {size(planned.freed_bytes)}"
            )
            killed = f"; {len(planned.leases)} leases of killed processes go" if planned.leases else ""
            say(f"{region}: {planned.snapshots} snapshots; {words}; {packs}{killed}")
        if not dry_run and not planned.empty:
            with bar(f"Collecting {region}", chosen.as_json) as report:
                done = gc.execute(archive, planned, report)
            answer["done"] = dataclasses.asdict(done)
            if not chosen.as_json:
                say(f"{region}: freed {size(done.freed_bytes)}")
        answers.append(answer)
    if chosen.as_json:
        print_json(answers)
    return 0


def cp(chosen: Chosen, snapshot: str, to: str, to_key_file: str | None) -> int:
    """Copy a snapshot to another archive: only what that lacks travels."""
    _, source = holding(chosen, snapshot)
    target = opened("TO_URL", to, to_key_file, create=True)
    with bar(f"Copying {snapshot}", chosen.as_json) as report:
        done = copy(source, snapshot, target, report)
    if chosen.as_json:
        print_json(dataclasses.asdict(done))
    elif done.again:
        say(f"{snapshot} is in {to} already")
    else:
        say(f"{snapshot} is in {to}: {done.chunks} chunks, {size(done.sent_bytes)} were sent")
    return 0


def rm(chosen: Chosen, snapshot: str, force: bool) -> int:
    """Forget a snapshot, readable or not."""
    region, archive = holding(chosen, snapshot)
    newest = [it.snapshot_id for it in archive.snapshots(job_of(snapshot))][-1:]
    if chosen.vault is None and newest == [snapshot] and not force:
        words = f"{snapshot} is the newest snapshot of job {job_of(snapshot)} in {region}"
        raise UsageError(f"{words}: the job may have to go on from it", "--force removes it all the same")
    archive.forget(snapshot)
    if chosen.as_json:
        print_json({"removed": snapshot, "region": region})
    else:
        say(f"{snapshot} is not in the archive of {region} any more; `midstep vault gc` frees its space")
    return 0


def archives(chosen: Chosen) -> list[Named]:
    """Each with the name of its region, or its URL. UsageError: there is none; VaultError."""
    if chosen.vault is not None:
        return [(chosen.vault, opened("--vault", chosen.vault, chosen.key_file, create=False))]
    found = [(region, vault.archive()) for region, vault in raw_vaults(chosen)]
    return [(region, archive) for region, archive in found if archive is not None]


def opened(where: str, url: str, key_file: str | None, *, create: bool) -> Archive:
    """The archive at a URL that was typed. UsageError, VaultError."""
    try:
        return open_archive(Place(url, Path(key_file) if key_file else None), create=create)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def raw_vaults(chosen: Chosen) -> Sequence[tuple[str, Snapshots]]:
    """The vaults of the fleet's regions; none when one archive was named."""
    if chosen.vault is not None:
        return ()
    paths = StatePaths.at(Path(chosen.state) if chosen.state else None)
    folder = paths.root / "vaults"
    if not paths.fleet.exists() or not folder.is_dir():
        words = f"there is no fleet in {paths.root}"
        raise UsageError(words, "--state names another one, --vault URL any archive")
    regions = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if chosen.region is not None and chosen.region not in regions:
        raise UsageError(f"there is no region {chosen.region}", f"there are {', '.join(regions)}")
    return [(name, Snapshots(folder / name)) for name in regions if chosen.region in (None, name)]


def holding(chosen: Chosen, snapshot: str) -> Named:
    """The archive that has a snapshot. SnapshotMissing."""
    found = [(name, archive) for name, archive in archives(chosen) if archive.exists(snapshot)]
    if not found and any(vault.is_raw(snapshot) for _, vault in raw_vaults(chosen)):
        words = f"snapshot {snapshot} is not archived yet: there are only its plain files"
        raise SnapshotMissing(f"{words}; a running fleet archives it by itself, soon")
    if not found:
        raise SnapshotMissing(f"snapshot {snapshot} is in no archive; `midstep vault ls` shows what is there")
    return found[0]


@contextmanager
def bar(title: str, quiet: bool) -> Generator[Report]:
    """A progress bar on a terminal's standard error."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)


VERBS: dict[str, Callable[..., int]] = {
    "ls": ls, "du": du, "check": check_all, "gc": collect, "cp": cp, "rm": rm
}  # fmt: skip


def main() -> None:
    """Run a verb; exits with its code."""
    verb, options = sys.argv[1], json.loads(sys.argv[2])
    names = {field.name for field in dataclasses.fields(Chosen)}
    chosen = Chosen(**{name: value for name, value in options.items() if name in names})
    rest = {name: value for name, value in options.items() if name not in names}
    guarded(lambda: VERBS[verb](chosen, **rest))


if __name__ == "__main__":
    main()
