"""SARE maps as PNG files, with their captions beside them, out of the tars of finished shards.

    sare export --dataset mini --preset mini --out look --limit 5        # five of each generator and class
    sare export --dataset genimage --preset paper --out look --shard 3 --what sare --what reconstruction --what image

Writes OUT/<subset>/<real|fake>/<image_id>.sare.png and OUT/captions.csv. The same command again goes on where it was;
more can be added to the same folder. Reads what records name, and loads no model.
"""

from itertools import groupby
from operator import itemgetter
from typing import Annotated

import typer

from sare_core.engine.manifest import read_index
from sare_core.engine.progress import bar
from sare_core.engine.shardfiles import TarReader
from sare_core.engine.signals import check_stop, stop_cleanly
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, ImageError, StageError
from sare_core.graph import ALL_SPLITS, Graph, run_settings
from sare_core.report import export as exported
from sare_core.report.export import What
from sare_core.store.storage import Store
from stages.exits import tell_first
from stages.options import Dataset, Detector, Manifests, OtherPreset, Set, Shard, View, Work, run_command


def export(
    dataset: Dataset,
    out: Annotated[str, typer.Option("--out", help="Folder or URL to write to. Nothing in it is overwritten.")],
    preset: OtherPreset = None,
    set_: Set = None,
    shard: Shard = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", help="Only this image_id; may be given several times.")
    ] = None,
    what: Annotated[
        list[What] | None, typer.Option("--what", help="May be given several times. Default: sare, the maps.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many images of each subset and label.")
    ] = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    detector: Detector = None,
    view: View = None,
) -> None:
    """Write SARE maps as PNG files, with captions.csv beside them.

    Maps are |x − x̂| exactly, in 8-bit levels, and mostly dark: brighten them in a viewer, not in the files. Exits with
    1 when something that was asked for is not there.
    """
    index = read_index(manifests, dataset)
    graph, store = Graph(run_settings(index, preset, set_, detector, view, work), dataset, work), Store(out)
    folder = graph.reconstructions
    wanted = list(dict.fromkeys(what or [What.sare]))
    shards = graph.shards(index, ["test"] if detector else ALL_SPLITS, shard)
    states = folder.states({number: index.digests[number] for number in shards})
    done = [number for number, state in states.items() if state.kind == "done"]
    records = {number: record for number, record in folder.records(done).items() if record.output}
    if What.reconstruction in wanted and any("reconstruction.png" not in r.fields for r in records.values()):
        raise ConfigError(f"{folder.store.url}: contains no x̂ (reconstruct.keep_reconstruction is off).")
    before = exported.read_captions(store, folder.fingerprint)

    rows = exported.exportable(index, records, image, limit)
    if not records:
        kinds = ", ".join(sorted({str(state) for state in states.values()}))
        raise StageError(f"{folder.store.url}: no shard's maps are done ({kinds}). Run `sare reconstruct` first.")
    missing = [f"shard {n} has no maps: {states[n]}" for n in shards if n not in records and not image]
    missing += [
        f"image {name} has no map in these shards: it failed, its shard is not done, or there is no such image"
        for name in image or []
        if name not in set(rows["image_id"])
    ]
    written, captions = 0, []
    with stop_cleanly(), bar(console, "export", len(rows)) as advance:
        try:
            for number, part in groupby(rows.iter_rows(named=True), key=itemgetter("shard")):
                reader = TarReader(folder.output(records[number]))
                for row in part:
                    check_stop()
                    try:
                        for name, data in exported.files_of(reader, row, wanted, index.about["root"]):
                            written += exported.place(store, name, data)
                    except ImageError as error:
                        missing.append(f"image {row['image_id']} has no source: {error}")
                    captions.append(exported.caption_row(reader, row, folder))
                    advance(1)
        finally:
            if captions:
                exported.write_captions(store, before, captions)
    console.print(
        f"export: {len(captions)} images, {written} files written. {store.path(exported.CAPTIONS)}", soft_wrap=True
    )
    tell_first(missing)
    if missing:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(export)
