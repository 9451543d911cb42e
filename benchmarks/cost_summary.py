"""Lines of `guided_cost` side by side: the guided engine over the plain base of the same machine and settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from benchmarks.engines import Decode, Plan
from benchmarks.layout import Layout, Shard

CONFIGURATIONS = ("plain-base", "plain-proxy", "guided")
SINCE_THE_FIRST = ("gpu_of_rank", "max_total_tokens", "speculate", "acceptance")  # of a setting; older lines have none


def summaries(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each guided engine, or for each plain base where nothing is guided; the newest line of a kind counts."""
    newest: dict[str, dict[tuple, dict[str, Any]]] = {}
    settings: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}
    for line in lines:
        setting, configuration = line["setting"], line["configuration"]
        engine = engine_key(setting, configuration)
        newest.setdefault(engine, {})[kind_key(line)] = line
        settings.setdefault(configuration, {})[engine] = (setting, line["conditions"])
    for configuration in reversed(CONFIGURATIONS):
        if configuration in settings:
            return [summary(*where, newest) for where in settings[configuration].values()]
    return []


def engine_key(setting: dict[str, Any], configuration: str) -> str:
    """What is the same for all lines that one engine may have written, in however many runs."""
    named = ("attention_backend", "dtype", "mem_fraction_static", "custom_all_reduce", "input_tokens", "output_tokens",
             "machine", "commit")  # fmt: skip
    models = [configuration, ranks_of(setting, configuration)]
    if configuration == "guided":
        # It has a table of its own for each plain base that it was to be compared with.
        models += [setting_layout(setting).placement, ranks_of(setting, "plain-base")]
        models += [setting.get(name) for name in SINCE_THE_FIRST]
    return json.dumps(models + [setting[name] for name in named])


def kind_key(line: dict[str, Any]) -> tuple:
    """What tells the lines of one engine apart."""
    if line["kind"] in ("decode", "steps"):
        # Older lines have none of the last three.
        later = line.get("unguided", 0), line.get("acceptance"), line.get("has_laws", False)
        return line["kind"], *Decode(line["batch"], line["temperature"], *later)
    return ("prefill", *line["setting"]["prefill"]) if line["kind"] == "prefill" else (line["kind"],)


def summary(
    setting: dict[str, Any], where: dict[str, Any], newest: dict[str, dict[tuple, dict[str, Any]]]
) -> dict[str, Any]:
    """The newest measurements of a guided engine and of the plain ones that it is compared with, side by side."""
    engines = {c: newest.get(engine_key(setting, c), {}) for c in CONFIGURATIONS}
    layout = setting_layout(setting)

    def step_ms(configuration: str, *decode: Any) -> float | None:
        return engines[configuration].get(("decode", *Decode(*decode)), {}).get("ms_per_step")

    decodes = sorted(
        {Decode(*key[1:]) for lines in engines.values() for key in lines if key[0] == "decode"},
        key=lambda decode: (decode.temperature, decode.acceptance or 0, decode.batch),
    )
    if any(each.acceptance is not None for each in decodes):  # plain engines have none
        decodes = [each for each in decodes if each.acceptance is not None]
    decode, alpha_zero, mixed, laws = [], [], [], []
    for each in decodes:
        batch, temperature, unguided, acceptance, has_laws = each
        base, proxy = (step_ms(c, batch, temperature) for c in CONFIGURATIONS[:2])
        guided = step_ms("guided", *each)
        if has_laws:
            constant = step_ms("guided", *each._replace(has_laws=False))
            laws.append(
                {"batch": batch, "constant_ms": constant, "laws_ms": guided, "ratio": divided(guided, constant)}
            )
            continue
        if unguided:
            row = {"batch": batch, "temperature": temperature, "plain_base_ms": base, "guided_engine_ms": guided}
        if unguided == batch:
            alpha_zero.append(row | {"over_base": divided(guided, base)})
        elif unguided:
            alone = [step_ms(c, batch - unguided, temperature) for c in ("plain-base", "guided")]
            allowed = round(base + alone[1] - alone[0], 3) if base and all(alone) else None
            mixed.append(
                row | {"unguided": unguided, "expected_ms": allowed, "over_expected": divided(guided, allowed)}
            )
        else:
            asked = Decode(batch, temperature)
            steps = [engines[c].get(("steps", *(each if c == "guided" else asked))) for c in CONFIGURATIONS]
            decode.append({
                "batch": batch,
                "temperature": temperature,
                "acceptance": acceptance,
                "plain_base_ms": base,
                "plain_proxy_ms": proxy,
                "guided_ms": guided,
                "guided_over_base": divided(guided, base),
                "over_parts": divided(guided, base and proxy and layout.parts_ms(base, proxy)),
                "ceiling_ms": {c: round(step_ceiling_ms(setting, where, c, batch), 2) for c in CONFIGURATIONS},
                "scheduler_ms": [seen and seen["ms_per_step"] for seen in steps],
                "full_batch_lines": [seen and f"{seen['full']}/{seen['lines']}" for seen in steps],
                "graph_lines": [seen and f"{seen['graphed']}/{seen['lines']}" for seen in steps],
            })  # fmt: skip
    prefills = [engines[c].get(("prefill", *setting["prefill"]), {}) for c in CONFIGURATIONS]
    seconds = [line.get("seconds") for line in prefills]
    base, proxy, guided = seconds
    prefill = {
        "prompts": setting["prefill"],
        **dict(zip(("plain_base_s", "plain_proxy_s", "guided_s"), seconds, strict=True)),
        "tokens_per_s": [line.get("tokens_per_s") for line in prefills],
        "guided_over_base": divided(guided, base),
        "over_parts": divided(guided, base and proxy and layout.parts_ms(base, proxy)),
    }
    starts = {c: engines[c]["start",] for c in CONFIGURATIONS if ("start",) in engines[c]}
    names = ("tokens", "tokens_that_fit", "capped", "token_bytes_sum", "weights_gib", "kv_gib", "budget_gib",
             "used_percent", "mem_fraction_static", "gpu_free_gib", "start_s")  # fmt: skip
    memory = {c: {name: start[name] for name in names} for c, start in starts.items()}
    return {"setting": setting, "conditions": where, "decode": decode, "alpha_zero": alpha_zero, "mixed": mixed,
            "laws": laws, "prefill": prefill, "memory": memory}  # fmt: skip


def divided(number: float | None, by: float | None) -> float | None:
    return round(number / by, 3) if number and by else None


def step_ceiling_ms(setting: dict[str, Any], where: dict[str, Any], configuration: str, batch: int) -> float:
    """A rank's step can't be faster than reading each weight and each KV byte once, at the speed of a copy."""
    plan = Plan(tuple(setting["batches"]), setting["input_tokens"], setting["output_tokens"])
    width, context_tokens = 2 if setting["dtype"] == "float32" else 1, batch * plan.mean_context_tokens
    ranks = ranks_of(setting, configuration)
    moved = width * max(sum(shard.step_bytes(context_tokens) for shard in shards) for shards in ranks)
    return moved / (where["copy_tb_per_s"] * 1e12) * 1e3


def setting_layout(setting: dict[str, Any]) -> Layout:
    """Lines from before there were placements have none in their setting."""
    placement, proxy_tp_size = setting.get("placement", "shared"), setting.get("proxy_tp_size")
    return Layout(setting["base"], setting["proxy"], setting["tp_size"], placement, proxy_tp_size)


def ranks_of(setting: dict[str, Any], configuration: str) -> list[list[Shard]]:
    """What a rank of an engine holds, one list for each sort of rank; rank 0's first."""
    layout = setting_layout(setting)
    if configuration == "plain-base":
        return [[Shard(layout.base, setting.get("base_tp_size") or layout.tp_size)]]
    if configuration == "plain-proxy":
        return [[Shard(layout.proxy, layout.proxy_ranks)]]
    return layout.ranks()
