"""`sam4em restitch`: another solve of a finished run's labels, with other thresholds or a user's orders.

1. the base run is complete, of this version, and its intermediates are there      else ConfigError, ManifestMismatch
2. its config with the changes and an output of its own; the labels stay as they are
3. orders are looked up in the base run's audit table and kept in the new run directory
4. a run of resolve, audit, relabel and pyramid, driven like any other

The base run is only read. Its directory has labels, measures and overlaps; the new one has everything else.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.errors import ConfigError, ManifestMismatch, VolumeNotFound
from pipeline.geometry import BlockGrid
from pipeline.ledger import RunManifest, check_same, read_manifest, read_state
from pipeline.run.blocks import check_block, common_unit
from pipeline.run.driver import Run
from pipeline.run.launch import RESULT_VERSION, describe_run, open_run, run_directory
from pipeline.run.orders import find_pairs, read_orders
from pipeline.run.outputs import class_plans, mip_factors_of, output_plans, pyramid_grids_of, result_digest, run_url_of
from pipeline.run.prepare import PreparedRun, prepare_run
from pipeline.stages.layout import column, lut_key
from pipeline.stages.orders import OrderBook
from pipeline.stages.plan import Restitch, RunPlan
from pipeline.storage import unpack_table

SETTINGS: Final = ("stitch", "min_iou", "min_size_nm3")
"""What resolve decides; everything else was decided when the blocks were labelled."""
_DIGITS: Final = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restitched:
    """A run that stitches another one's labels again, ready to be driven."""

    prepared: PreparedRun
    """Its plan."""
    run: Run
    """What is driven."""
    book: OrderBook
    """What the user has ordered."""


def open_base(config: RunConfig, name: str) -> PreparedRun:
    """Open the run whose labels are stitched again.

    Args:
        config: of that run.
        name: what the user calls it.

    Raises:
        VolumeNotFound: no run has begun there.
        ConfigError: it is not complete, was cleaned, or is itself such a run.
        ManifestMismatch: it is of another version, or image, model or config have changed since.
    """
    store = run_directory(config, run_url_of(config))
    begun = read_manifest(store)
    if begun is None:
        raise VolumeNotFound(f"restitching {name}: no run has begun there")
    if begun.restitched_from is not None:
        raise ConfigError(
            f"restitching {name}: it is itself stitched again from {begun.restitched_from['run_url']} and has no "
            "labels; give that run, with all thresholds and orders"
        )
    if begun.result_version != RESULT_VERSION:
        raise ManifestMismatch(
            f"restitching {name}: it was made by result version {begun.result_version}, this sam4em has "
            f"{RESULT_VERSION}; restitch with the version that made it, or run it again"
        )
    state = read_state(store)
    if state.cleaned:
        raise ConfigError(
            f"restitching {name}: `sam4em clean` has removed its labels and overlaps; run it again, with "
            "storage.keep_intermediates: true to keep them"
        )
    if not state.complete:
        raise ConfigError(f"restitching {name}: the run is not complete; give its own command again first")
    prepared = prepare_run(config)
    check_same(begun, describe_run(prepared))
    return prepared


def changed_config(base: RunPlan, settings: Sequence[str], output: str | None, orders: OrderBook | None) -> RunConfig:
    """Apply a user's changes to the config of the base run.

    Args:
        base: the base run's plan.
        settings: `KEY=VALUE` for all classes of instances, `CLASS.KEY=VALUE` for one; see `SETTINGS`.
        output: where to write; None: beside the base run's first output, named after the changes.
        orders: the pairs that were ordered, where there are any.

    Raises:
        ConfigError: an unknown key or class, a value out of range, nothing to change, or the base run's own output.
    """
    if not settings and orders is None:
        raise ConfigError("restitching: nothing would change; give --set KEY=VALUE or --veto FILE")
    values = base.config.model_dump(mode="json")
    rules = dict(values["classes"])
    for rule in base.classes:
        rules.setdefault(rule.name, {})
    for setting in settings:
        _apply(setting, rules, base)
    values["classes"] = rules
    url = output or _named_output(base, rules, orders)
    if url.rstrip("/") in [section.url.rstrip("/") for section in base.config.outputs]:
        raise ConfigError(f"restitching: {url} is an output of the run itself, which stays as it is; give another one")
    sections = [section for section in values["outputs"] if section["url"].endswith(".zarr") == url.endswith(".zarr")]
    values["outputs"] = [{**(sections or values["outputs"])[0], "url": url}]
    return parse_config(values, RunConfig, "of the run, with --set")


def restitched_plan(base: PreparedRun, config: RunConfig, orders_key: str | None) -> RunPlan:
    """Plan the new run: blocks and labels of the base run, rules and output of the config.

    Raises:
        PlanError: the output's write units do not nest with the blocks.
    """
    plan, demand = base.plan, base.demand
    classes = class_plans(config, demand, plan.output_voxel_size_nm)
    factors = mip_factors_of(plan.output_domain.shape, plan.output_voxel_size_nm, config)
    common = replace(plan.outputs[0].spec, factors_zyx=factors, run=result_digest(config, demand))
    outputs = output_plans(config, classes, common)
    unit = common_unit([output.write_units_zyx[0] for output in outputs], "relabel")
    block = plan.label_grid.core
    check_block(block, unit)
    cell = (max(block[0], unit[0]), max(block[1], unit[1]), max(block[2], unit[2]))
    return replace(
        plan,
        config=config,
        run_url=run_url_of(config),
        classes=classes,
        outputs=outputs,
        mip_factors=factors,
        relabel_grid=BlockGrid(plan.output_domain, cell),
        pyramid_grids=pyramid_grids_of(outputs),
        predictions=(),
        restitch=Restitch(plan.run_url, plan.classes, orders_key),
    )


def begin_restitch(
    base_config: RunConfig, name: str, settings: Sequence[str], veto: Path | None, output: str | None
) -> Restitched:
    """Put a new run together and keep its orders.

    Args:
        base_config: config of the base run.
        name: what the user calls that run.
        settings: see `changed_config`.
        veto: file of orders; see `pipeline.run.orders`.
        output: see `changed_config`.

    Raises:
        Sam4emError: see `open_base`, `changed_config`, `read_orders` and `find_pairs`.
    """
    base = open_base(base_config, name)
    book: OrderBook | None = None
    if veto is not None:
        orders = read_orders(veto, tuple(rule.name for rule in base.plan.classes))
        book = find_pairs(orders, run_directory(base_config, base.plan.run_url), base.plan)
    config = changed_config(base.plan, settings, output, book)
    orders_key = None if book is None else f"orders-{_digest(book)}"
    restitched = _assemble(base, config, orders_key, book or OrderBook.empty())
    begun = read_manifest(restitched.run.store)
    if begun is not None:
        check_same(begun, restitched.run.manifest)
    if book is not None and orders_key is not None:
        # Named after its content: a run that has begun with it is given the same again.
        run_directory(config, run_url_of(config)).put(orders_key, book.packed())
    return restitched


def reopen_restitch(config: RunConfig, begun: RunManifest) -> Restitched:
    """Open a restitched run that has begun, for `verify` and `clean`.

    Raises:
        VolumeNotFound: the base run is gone.
        ManifestMismatch: the base run was made anew since.
    """
    origin: dict[str, Any] = begun.restitched_from or {}
    manifest = read_manifest(run_directory(config, origin["run_url"]))
    if manifest is None:
        raise VolumeNotFound(f"opening the run: {origin['run_url']}, whose labels it stitches, is gone")
    if manifest.digest != origin["digest"]:
        raise ManifestMismatch(
            f"opening the run: {origin['run_url']}, whose labels it stitches, was made anew since; restitch that one"
        )
    base_config = RunConfig.model_validate(
        {**manifest.config, **config.model_dump(mode="json", include={"storage", "cluster", "faults", "logging"})}
    )
    return _assemble(prepare_run(base_config), config, origin["orders"], OrderBook.empty())


def count_joined(restitched: Restitched) -> int:
    """Count the vetoes that came to nothing: other pairs join the two labels all the same.

    Raises:
        WorldError: a map is missing or damaged.
    """
    plan, book, store = restitched.prepared.plan, restitched.book, restitched.run.store
    num_joined = 0
    for row in (~book.merge).nonzero()[0]:
        number, block = int(book.class_index[row]), int(book.block[row])
        neighbor = plan.label_grid.upper_neighbor(block, int(book.axis[row]))
        if neighbor is None:
            continue
        keys = (lut_key(block), lut_key(neighbor))
        ids = [unpack_table(store.get(key), key)[column(number, "ids")] for key in keys]
        lower, upper = ids[0][book.lower[row]], ids[1][book.upper[row]]
        if lower == upper != 0:
            num_joined += 1
            log.warning(
                "the veto between label %d of block %d and label %d of block %d: others join them, both are in %d",
                book.lower[row],
                block,
                book.upper[row],
                neighbor,
                lower,
            )
    return num_joined


def _assemble(base: PreparedRun, config: RunConfig, orders_key: str | None, book: OrderBook) -> Restitched:
    plan = restitched_plan(base, config, orders_key)
    prepared = replace(base, plan=plan)
    run = open_run(prepared)
    origin = {"run_url": base.plan.run_url, "digest": describe_run(base).digest, "orders": orders_key}
    manifest = replace(run.manifest, restitched_from=origin)
    return Restitched(prepared, replace(run, manifest=manifest), book)


def _apply(setting: str, rules: dict[str, dict[str, Any]], base: RunPlan) -> None:
    """Change one value in the rules of the classes it names."""
    name, separator, value = setting.partition("=")
    class_name, _, key = name.rpartition(".")
    if not separator or key not in SETTINGS:
        raise ConfigError(
            f"restitching with --set {setting!r}: expected KEY=VALUE or CLASS.KEY=VALUE with KEY one of "
            f"{', '.join(SETTINGS)}; anything else is decided when blocks are labelled and needs a new run"
        )
    instances = [rule.name for rule in base.classes if rule.kind == "instances"]
    chosen = [class_name] if class_name else instances
    if not set(chosen) <= set(instances) or not chosen:
        raise ConfigError(
            f"restitching with --set {setting!r}: the run has no objects of class {class_name!r}; it has "
            f"{', '.join(instances) or 'none'}"
        )
    for chosen_name in chosen:
        rules[chosen_name] = {**rules[chosen_name], key: value}


def _named_output(base: RunPlan, rules: dict[str, dict[str, Any]], orders: OrderBook | None) -> str:
    """Name an output after what is changed: the same command goes on with the same run."""
    text = json.dumps([rules, None if orders is None else _digest(orders)], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    first = base.config.outputs[0].url.rstrip("/")
    stem, suffix = (first[: -len(".zarr")], ".zarr") if first.endswith(".zarr") else (first, "")
    return f"{stem}-restitch-{digest}{suffix}"


def _digest(book: OrderBook) -> str:
    return hashlib.sha256(book.packed()).hexdigest()[:_DIGITS]
