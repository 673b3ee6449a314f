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

UNSEEN = """Every closed loop without doubt, simulated with the engines' constants fitted on the servings of all *other* models (GPUs, engines: an engine
takes the mean of the others' constants; such fits take figures as linear in the constants, and are simulated again with what they found). E2E: TTFT + (osl - 1) TPOT of rows with both. Kernel constants come from tables of kernels and from no serving, so they are the same everywhere;
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

SERVING = """Every row is simulated request by request, as `dagc serve` does it ([serving.md](serving.md)): a `serve` section whose phases are
the row's deployment, under the load of its benchmark, with the defaults of the engine's scheduler ([cost.md](cost.md)). Steps are
interpolated between compiled ones (powers of two of sequences and prompt tokens, of four of context), without refinement.

- Sweeps (rows of 1024/1024, 1024/8192 and 8192/1024): a closed loop of the clients that the row states, all of which start at
  once, ten requests each, lengths drawn uniformly between 0.8 and 1.0 of those stated, no prefix cache. Others: between 0.9 and 1.1.
- Sweeps of DeepSeek-V3, R1 and gpt-oss on TensorRT-LLM with attention DP and one kind of worker: no row says how prompts wait for other
  ranks. Taken as the scripts of these sweeps set it (InferenceMAX: `enable_balance`): `balance = 60` for DeepSeek, `balance = 50, gather = 10` for
  gpt-oss; and `route = least`, as that engine gives requests to its ranks. Other servings with attention DP: prompts do not wait, ranks in turn.
- Disaggregated: the same closed loop over prefill workers that hand the cache over to decode workers.
- Saturated runs: as many requests as trtllm-bench sends for these lengths, all queued at once; filling and draining count.
- Static batches: a burst of the batch, prompts first, no time for a front end.

Four constants per engine are free: the host's time of a step, of each layer that no CUDA graph covers (while which the GPUs may
run), of a request before it is scheduled, and what prompts add to a step over what their kernels take. They are fitted on the `tune` half, for the least mean error of
TPOT and (0.4 of it) TTFT, and are the product's (`grammar/library/serving/engines.json`). Deployments fall into `tune` or `check`
by a hash of model, GPU, engine, dtype and degrees, so rows of one deployment are on one side. Engine defaults that rows do not state (dtype of the KV cache,
which phases gather tokens and which exchange them) are in `tools/accuracy.json`, and so is what the public launch scripts of the sweeps set
(dtype of the KV cache, activations of MXFP4 experts, whether a model ever drafted). Routing is uniform.

`high`, `medium`, `low`: how complete the published record is. `may speculate`: rows of a model with layers for multi-token
prediction, from a source that does not say whether they ran. A TPOT far below the estimate often means that they did."""

OFFERED = """Servings with arrivals of their own, simulated with the constants of the section above; nothing was fitted on any of them.

- MLPerf Inference, Server runs of mixture-of-experts models on NVIDIA GPUs (closed, valid): Poisson arrivals at the stated rate, for ten minutes or the stated number of
  requests (at most 20,000 on a replica), limits of TTFT and TPOT at p99. Every run was tuned to sit at its limits. Lengths of prompts are not
  published with the results; `tools/accuracy.json` says which are assumed (400 tokens for Mixtral, 800 for DeepSeek-R1), and layouts of the v4.1 runs, which state none. Outputs: the stated
  mean, lognormal, varied as the run's own E2E is.
- vLLM at constant rates: chats that share a system prompt, which the prefix cache has.
- Traces at Poisson rates: the trace itself, split over replicas in turn.
- vLLM, request by request: two overloaded servers. Their steps are scaled so that TPOT is as measured: what is left is the queue."""

PEERS = """Medians that others state for the same kind of figure, on their own runs: a simulator of 38 vLLM servings (BLIS): E2E 6.8%, ITL 6.5%, TTFT 18.4%; closed forms without
a queue (aiconfigurator 0.9): 21.5%, 13.2%, several hundred; LLMServingSim: 18.8%, 21.8%, 72.5%."""

RATES = """Tokens per second of one kind of step, of records that state its batch; where a prefill does not, the engine's tokens per step are taken.
`tools/accuracy.json` says which engine is taken for an operator's own, and which length for a record without one (of the same fleet's other record)."""

KERNELS = """Published times of single kernels, each with its own document; some are of the tables that the calibration was fitted to
([kernels.md](kernels.md) has the errors on held-out rows, by family, GPU and engine). `scaled`: the GPU has no constants of its own; those of the calibration
that its preset names are scaled by datasheet rates."""

NOISE = """Runs of measured_serving that differ in nothing but the engine's version and the day, each against the median of its
repeats; a run listed twice counts once. Only rows that state everything (degrees, workers of both sides, precision, requests in
flight), of models that cannot speculate: rows with blanks look like repeats and are not. No model of the configuration can be
closer than this."""

LABELS = """What these series can tell is little. Rows state neither speculation nor what else was set, and their degrees are not always those of
the run (`differ also in`):

- *Another number of GPUs*: {rows} rows of sweeps multiply degrees: runs on d GPUs with the experts on d ranks are listed as tp d² (or dp d²)
  with experts tp d ep d, of vLLM as tp d dp d with ep d². {twice} of them are listed a second time, plainly, with the same two figures to 0.1 %.
  They are estimated on d GPUs everywhere on this page; here they stay in the series that their labels put them in, where more GPUs are faster.
- *No version*: older rows, whose labels always say expert-TP. The sweep recorded no degrees of experts then, and its launch scripts
  (SemiAnalysisAI/InferenceX, 2025) ran several of them with expert parallelism: SGLang's DeepSeek-R1 in FP4, TensorRT-LLM on H200.
- *Versions*: no version of the engine ran all layouts.
- Not in the table, by the same repository's launch scripts of 2026: DeepSeek-R1 with TensorRT-LLM 1.2.0rc6.post3, and Qwen3.5 in FP8 on B200 with SGLang
  0.5.9 as tp4 ep1, ran with drafts alone, the layouts beside them without; Kimi-K2.5 in FP4 with vLLM was launched without
  expert parallelism whatever its row says; MiniMax-M2.5 never drafted."""

AS_RUN = """The same with the degrees that ran, one stated version of the engine in a series, and no row without a version. Drafts are not
known here either, but for the scripts above."""

REFUSED = (
    """Reasons as dagc or the reader states them, and the number of figures lost (a row of the CSV has one or two)."""
)

SAMPLE = (
    """A few cases of each source, in `tests/data/accuracy`. A test compiles them again and checks these medians."""
)
