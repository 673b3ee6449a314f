"""Words of docs/accuracy.md around its tables."""

INTRO = """# How accurate the estimates are

Made by `python tools/accuracy.py --data DIR --configs CONFIGS --write`. Every case becomes a spec (model,
GPUs, folded strategy, dtypes, engine), is compiled, and its TTFT, TPOT or throughput is compared with the published figure.
Errors are |estimate / published - 1|; `bias` is the median of the signed error: above zero, dagc is too slow. Throughputs
are converted to times first."""

SOURCES = """Sources: static estimates and servings of ai-dynamo/aiconfigurator (packages aiconfigurator and aiconfigurator-core 0.12.0,
Apache-2.0, copyright NVIDIA CORPORATION & AFFILIATES); published measurements, each with its own document. Kernel times
of the calibration come from tables of the same package; no end-to-end figure was used to fit a kernel."""

GOALS = """What this project set itself, and what is reached. Kernels: the part (a family on a GPU) in the middle of each engine, by rows
([kernels.md](kernels.md) has all). TPOT and layouts: below, under models that no constant saw."""

STATIC = """One step each, estimated by another tool from kernel measurements: prefill of a whole batch, and the mean of 31 decode
steps. Its expert loads follow a sampling law (power law of 1.2, DeepSeek 1.01); dagc uses the zipf exponent with the same
mean load of the busiest rank. Its steps add up ops without overlap. Where the experts are on several ranks and a step
has few tokens, its busiest rank is an artefact of its sampler, which gives one rank every expert of one token."""

CLASSES = """`share`: of the step, in the reference. `adds to the step`: mean of (ours - theirs) over the step's time; the classes add up
to the step's error. Latent attention is one class there, with its projections; shared experts that run alongside the routed ones
are one class in decode; here they run one after the other. `(ours alone)`: ops that the reference leaves out, such as the
dense feed-forwards among sparse layers."""

MEMORY = """The reference counts a truncated cache where a window slides, and the cache of all layers on each pipeline stage."""

UNSEEN = """Every serving without doubt, predicted with the engines' constants fitted on the servings of all *other* models (GPUs, engines: an engine
takes the mean of the others' constants). Kernel constants come from tables of kernels and from no serving, so they are the same everywhere;
[kernels.md](kernels.md) has their errors on rows, shapes, GPUs and engines that were left out.

Layouts: series of aggregated runs of equal model, GPU, engine, precision, lengths, requests in flight and *number of GPUs* (with that free, more GPUs
are trivially faster), constants fitted without the model. Right: the layout of least estimated TPOT has the least measured TPOT (repeats: their median, versions of the engine pooled).
A layout that no spec can say makes its series wrong. Regret: measured TPOT of the choice over the best's, less one."""

PHASES = """The compiled phase and nothing else, against what a server measured: a decode step at the batch in flight and the mean context,
against TPOT; the prefill of one prompt per rank, against TTFT. These are the errors that reports print beside a phase (`all without
doubt`: without rows that may speculate). Nothing was fitted on any of these rows, so all of them count. The phase is
mostly too fast: a server prefills other requests between the steps, its host works, and a request waits before its prefill."""

UNMEASURED = """The same phases, priced as on a GPU that nobody measured. First with the kernels of the nearest other GPU that has a calibration, scaled
by the datasheets; then with none, as presets without a calibration are. Reports print these errors where they hold."""

SERVING = """What a benchmark of a server measures is modelled from two phases of a plan; `b` sequences are in flight on an attention
rank (concurrency / attention-dp, or fewer when memory or the engine allows fewer), each of `isl` prompt and `osl` output tokens.

- Decode step `d`: the decode phase with b sequences per rank and context isl + osl / 2, plus the engine's host overhead.
- Prefill `p`: the prefill phase with one prompt per rank (as many as end in one step, where outputs are shorter than the
  batch), in chunks of the engine's tokens per step. Each chunk adds the host overhead of a step, and of each layer, as no CUDA graph
  covers a step with prompt tokens. Prompts of different attention ranks run side by side.
- Aggregated TPOT: of a request's osl steps, (b - 1) x chunks hold prompt tokens, as each other request of its rank is replaced once meanwhile.
  Engines that mix prompt tokens into decode steps (TensorRT-LLM, vLLM) run such a step as p and the attention of d; SGLang runs d and p.
- Aggregated TTFT: the overhead of a request, `p + d / 2` and the wait: M/D/1 at the share of time that prefills take, half of
  the other prompts in the first of ten rounds (benchmarks start their requests at once), and whole rounds where memory has
  room for fewer than are in flight.
- Disaggregated: TPOT = d at concurrency / (workers x attention-dp); TTFT = p and an M/D/1 wait at the prefill workers. The
  transfer of the KV cache is left out: no source states its link.
- Static batches: p + (osl - 1) d. Saturated servers: b is what memory and the engine allow, throughput = b osl / (osl TPOT + p).

The choices came from how the engines work, before any constant was fitted. Three constants per engine are free: the host
overhead per step and per layer without a graph (on TPOT) and the overhead per request (on TTFT), fitted on the `tune` half. Deployments fall into `tune` or
`check` by a hash of model, GPU, engine, dtype and degrees, so rows of one deployment are on one side. Engine defaults that rows
do not state (dtype of the KV cache, tokens per step, share of memory, which phases gather tokens and which exchange them) are in
`tools/accuracy.json`. Routing is uniform.

`high`, `medium`, `low`: how complete the published record is. `may speculate`: rows of a model with layers for multi-token
prediction, from a source that does not say whether they ran. A TPOT far below the estimate often means that they did."""

RATES = """Tokens per second of one kind of step, of records that state its batch; where a prefill does not, the engine's tokens per step are taken.
`tools/accuracy.json` says which engine is taken for an operator's own, and which length for a record without one (of the same fleet's other record)."""

KERNELS = """Published times of single kernels, each with its own document; some are of the tables that the calibration was fitted to
([kernels.md](kernels.md) has the errors on held-out rows, by family, GPU and engine). `scaled`: the GPU has no constants of its own; those of the calibration
that its preset names are scaled by datasheet rates."""

NOISE = """Runs of measured_serving that differ in nothing but the engine's version and the day, each against the median of its
repeats; a run listed twice counts once. Only rows that state everything (degrees, workers of both sides, precision, requests in
flight), of models that cannot speculate: rows with blanks look like repeats and are not. No model of the configuration can be
closer than this."""

REFUSED = (
    """Reasons as dagc or the reader states them, and the number of figures lost (a row of the CSV has one or two)."""
)

SAMPLE = (
    """A few cases of each source, in `tests/data/accuracy`. A test compiles them again and checks these medians."""
)
