"""Files that start deployments become the plan that they start: what dagc writes reads back as it was, and what others write is read."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.importers.deployments import any_file
from dagc.importers.engines.command import ServerCommand

ROOT = Path(__file__).parent.parent
GRAPH = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: engine}
data:
  decode.yaml: |
    tensor_parallel_size: 8
    moe_expert_parallel_size: 8
    enable_attention_dp: true
---
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: deployment}
spec:
  envs: [{name: MODEL, value: org/model}]
  services:
    Frontend: {componentType: frontend, extraPodSpec: {mainContainer: {command: [python3, -m, dynamo.frontend]}}}
    prefill:
      componentType: worker
      subComponentType: prefill
      replicas: 2
      multinode: {nodeCount: 2}
      resources: {limits: {gpu: "4"}}
      extraPodSpec:
        mainContainer:
          command: [/bin/sh, -c]
          args:
            - |
              # a comment
              exec python3 -m dynamo.trtllm --model-path "$MODEL" --extra-engine-args /config/prefill.yaml \\
                --disaggregation-mode prefill --publish-events-and-metrics
    decode:
      componentType: worker
      replicas: 3
      resources: {limits: {gpu: 8}}
      extraPodSpec:
        volumes: [{name: config, configMap: {name: engine}}]
        mainContainer:
          volumeMounts: [{name: config, mountPath: /config}]
          command: [python3, -m, dynamo.trtllm]
          args: [--model-path, $(MODEL), --extra-engine-args, /config/decode.yaml, --disaggregation-mode=decode]
"""
SET = """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: served}
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 4
    leaderTemplate:
      metadata: {labels: {llm-d.ai/role: ROLE}}
      spec:
        containers:
          - name: leader
            env: [{name: TP, value: "8"}, {name: SECRET, valueFrom: {secretKeyRef: {name: a, key: b}}}]
            command: [sh, -c, 'ulimit -l unlimited; exec vllm serve org/model --tensor-parallel-size $(TP) --nnodes $(LWS_GROUP_SIZE) --kv-transfer-config "{}"']
            resources: {limits: {nvidia.com/gpu: "8", cpu: 10}}
    workerTemplate:
      spec: {containers: [{name: worker, command: [sh, -c, 'vllm serve org/model --headless']}]}
---
apiVersion: v1
kind: Service
metadata: {name: served}
"""
VALUES = """\
multinode: true
modelArtifacts: {uri: "hf://org/model", name: org/model}
decode:
  replicas: 2
  parallelism: {tensor: 2, data: 16, dataLocal: 8}
  containers:
    - image: vllm/vllm-openai:v0.33.0
      modelCommand: vllmServe
      args: [--enable-expert-parallel, --max-num-seqs, 64]
prefill:
  parallelism: {tensor: 4}
  containers:
    - {image: "x", modelCommand: custom, command: [/bin/bash, -c], args: ["exec vllm serve org/model -tp $TP_SIZE"]}
"""
COMPOSE = """\
x-common: &common {image: "vllm/vllm-openai:v0.33.0", environment: {VLLM_USE_V1: 1}}
services:
  first:
    <<: *common
    command: --model ${MODEL:-org/model} --tensor-parallel-size 4
    deploy: {replicas: 2, resources: {reservations: {devices: [{driver: nvidia, count: 4, capabilities: [gpu]}]}}}
  cache: {image: redis}
"""
RUN = """\
#!/bin/bash
set -e
trap 'kill 0' EXIT
export MODEL_PATH=${MODEL_PATH:-"org/model"}
python3 -m dynamo.frontend --http-port "8000" 2>&1 | sed "s/^/[Frontend] /" &
PREFILL_GPU=2
PREFILL_WORKERS=2
for ((w=0; w<PREFILL_WORKERS; w++)); do
  BASE=$(( w * PREFILL_GPU ))
  GPU_LIST=$(seq -s, $BASE $((BASE+PREFILL_GPU-1)))
  ( CUDA_VISIBLE_DEVICES=$GPU_LIST DYN_SYSTEM_PORT=$((8081 + w)) \\
    python3 -m dynamo.vllm --model "$MODEL_PATH" --tensor-parallel-size "2" --is-prefill-worker 2>&1 | sed "s/^/[P $w] /" ) &
done
( CUDA_VISIBLE_DEVICES=4,5,6,7 python3 -m dynamo.vllm --model "$MODEL_PATH" --tensor-parallel-size "4" ) &
wait
"""
DISAGGREGATED = """\
hostname: localhost
port: 8000
model: org/model
free_gpu_memory_fraction: 0.8
context_servers: {num_instances: 2, tensor_parallel_size: 2, urls: ["a:1", "b:1"]}
generation_servers: {num_instances: 1, tensor_parallel_size: 4, enable_attention_dp: true, urls: ["c:1"]}
"""


def read(tmp_path: Path, files: dict[str, str], kind: str = "auto") -> dict[str, tuple[str, ServerCommand]]:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = any_file.commands(kind, [str(tmp_path / name) for name in files])
    return {command.role or command.name: (engine, command) for engine, command in found}


def test_a_graph_of_dynamo(tmp_path):
    (tmp_path / "prefill.yaml").write_text("tensor_parallel_size: 8\n")
    found = read(tmp_path, {"deploy.yaml": GRAPH}, "dynamo")
    engine, prefill = found["prefill"]
    assert engine == "trtllm" and prefill.argv == ("trtllm-serve", "org/model", "--config", "/config/prefill.yaml")
    assert (prefill.replicas, prefill.nodes, prefill.gpus_per_node) == (2, 2, 4)
    assert prefill.files == {"/config/prefill.yaml": "tensor_parallel_size: 8\n"}  # beside the file
    assert prefill.span is not None and prefill.span.text == "- |"
    engine, decode = found["decode"]
    assert decode.argv == ("trtllm-serve", "org/model", "--config", "/config/decode.yaml")
    assert (decode.replicas, decode.nodes, decode.gpus_per_node) == (3, 1, 8)
    assert "enable_attention_dp: true" in decode.files["/config/decode.yaml"]
    assert found.keys() == {"prefill", "decode"}


def test_groups_of_pods(tmp_path):
    found = read(
        tmp_path,
        {"a.yaml": SET.replace("ROLE", "prefill"), "b.yaml": SET.replace("ROLE", "decode").replace('"8"', '"4"')},
    )
    engine, one = found["prefill"]
    assert engine == "vllm" and one.argv[:5] == ("vllm", "serve", "org/model", "--tensor-parallel-size", "8")
    assert (one.replicas, one.nodes, one.gpus_per_node) == (2, 4, 8)
    assert one.environment["SECRET"] == "$SECRET"
    assert found["decode"][1].argv[4] == "4"


def test_values_of_the_chart(tmp_path):
    found = read(tmp_path, {"values.yaml": VALUES}, "llm-d")
    decode = found["decode"][1]
    assert decode.argv[:3] == ("vllm", "serve", "org/model") and decode.argv[-1] == "64"
    assert decode.argv[3:9] == (
        "--tensor-parallel-size",
        "2",
        "--data-parallel-size",
        "16",
        "--data-parallel-size-local",
        "8",
    )
    assert (decode.replicas, decode.nodes, decode.gpus_per_node) == (2, 2, 16)
    prefill = found["prefill"][1]
    assert prefill.argv == ("vllm", "serve", "org/model", "-tp", "4") and (prefill.nodes, prefill.gpus_per_node) == (
        1,
        4,
    )


def test_a_compose_file(tmp_path):
    engine, one = read(tmp_path, {"compose.yaml": COMPOSE})["first"]
    assert engine == "vllm" and one.argv == ("vllm", "serve", "--model", "org/model", "--tensor-parallel-size", "4")
    assert (one.replicas, one.gpus_per_node) == (2, 4) and one.environment == {"VLLM_USE_V1": "1"}


def test_a_script_with_loops(tmp_path):
    found = read(tmp_path, {"run_0.sh": RUN}, "aiconfigurator")
    engine, prefill = found["prefill"]
    assert engine == "vllm" and prefill.argv == ("vllm", "serve", "org/model", "--tensor-parallel-size", "2")
    assert (prefill.replicas, prefill.first_gpus) == (2, (0, 2)) and prefill.environment[
        "CUDA_VISIBLE_DEVICES"
    ] == "0,1"
    (other,) = (command for role, (_, command) in found.items() if role != "prefill")
    assert other.argv[-1] == "4" and other.replicas == 1


def test_a_file_of_disaggregated_servers(tmp_path):
    found = read(tmp_path, {"disagg.yaml": DISAGGREGATED})
    engine, prefill = found["prefill"]
    assert (
        engine == "trtllm"
        and prefill.argv == ("trtllm-serve", "org/model", "--config", "prefill.yaml")
        and prefill.replicas == 2
    )
    assert (
        '"free_gpu_memory_fraction": 0.8' in prefill.files["prefill.yaml"]
        and "urls" not in prefill.files["prefill.yaml"]
    )
    assert '"enable_attention_dp": true' in found["decode"][1].files["decode.yaml"]


def test_scripts_of_a_replica_each(tmp_path):
    case = 'case "$REPLICA" in 0) GPU=0;; 1) GPU=8;; *) exit 2;; esac\n'
    serve = "vllm serve org/model --port $((8000 + ${REPLICA:-0}))\n"
    one = read(tmp_path, {"a.sh": case + serve})["a"][1]
    assert (one.replicas, one.first_gpus) == (2, (0, 8))
    assert read(tmp_path, {"b.sh": serve})["b"][1].replicas == 1  # it would take any number


def test_wrappers(tmp_path):
    (tmp_path / "inner.sh").write_text(
        'exec numactl --cpunodebind=0 -m 0 vllm serve org/model --tensor-parallel-size "$1"\n'
    )
    script = """\
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
srun -N2 --ntasks-per-node=1 --container-image=img --export ALL,X=1 env -u Y A=1 timeout -k 5 60 bash inner.sh 8
docker run --rm --gpus all -e B=2 --env C=3 -v /a:/b --ipc=host vllm/vllm-openai:v0.33.0 --model org/model -tp 4
ssh -o StrictHostKeyChecking=no user@host "cd /x && D=4 nohup vllm serve org/model -tp 2 > log 2>&1 &"
mpirun -np 8 -x E=5 -mca btl tcp trtllm-llmapi-launch trtllm-serve org/model --tp_size 8
"""
    (tmp_path / "job.sh").write_text(script)
    found = any_file.commands("script", [str(tmp_path / "job.sh")])
    assert [" ".join(command.argv) for _, command in found] == [
        "vllm serve org/model --tensor-parallel-size 8",
        "vllm serve --model org/model -tp 4",
        "vllm serve org/model -tp 2",
        "trtllm-serve org/model --tp_size 8",
    ]
    first, image, remote, mpi = (command for _, command in found)
    assert (first.nodes, first.gpus_per_node) == (2, 4) and first.environment["A"] == "1"
    assert (image.environment["B"], image.environment["C"], remote.environment["D"], mpi.environment["E"]) == (
        "2",
        "3",
        "4",
        "5",
    )


LAUNCHERS = ("", "shell", "slurm", "kubernetes", "dynamo", "llm-d")


def dagc(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dagc", *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("a: 1\n", "auto", "what it starts is not known"),
        ("tensor_parallel_size: 8\n", "auto", "no model: --from trtllm"),
        ("serving_mode: agg\nmodel_path: a/b\n", "auto", "what aiconfigurator was asked"),
        ("kind: Pod\napiVersion: v1\n", "auto", "nothing in it starts a server"),
        ("kind: Pod\napiVersion: v1\n", "dynamo", "--from kubernetes reads it"),
        ("context_servers: {urls: [a]}\n", "auto", "says where its servers are"),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{command: [sh, -c, 'if x; then']}]}\n",
            "auto",
            "the script is not read",
        ),
        ("a: !!python/object:x {}\n", "auto", "no plain data"),
        ("[" * 300, "auto", "nested"),
        ("services: {a: {image: x, command: 'vllm \"'}}\n", "auto", "no words of a shell"),
        ("", "auto", "what it starts is not known"),
    ],
)
def test_files_that_are_no_deployment(tmp_path, content, kind, said):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(SpecError) as caught:
        any_file.commands(kind, [str(tmp_path / "x.yaml")])
    shown = " ".join(f"{d.message} {' '.join(d.help)}" for d in caught.value.diagnostics)
    assert said in shown


def test_files_beside_are_read_inside_the_project_alone(tmp_path):
    secret = tmp_path / "secret.yaml"
    secret.write_text("tensor_parallel_size: 2\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "run.sh").write_text(f"trtllm-serve org/model --config {secret}\n")
    ((_, one),) = any_file.commands("script", [str(project / "run.sh")])
    assert one.files == {}
    shutil.copy(secret, project / "secret.yaml")
    ((_, one),) = any_file.commands("script", [str(project / "run.sh")])
    assert one.files == {str(secret): "tensor_parallel_size: 2\n"}


def test_scripts_in_scripts_share_their_bounds(tmp_path):
    loop = "for i in {1..5000}; do bash -c '%s'; done\n"
    (tmp_path / "x.sh").write_text(loop % "for j in {1..5000}; do :; done")
    with pytest.raises(SpecError) as caught:
        any_file.commands("script", [str(tmp_path / "x.sh")])
    assert "takes more than" in caught.value.diagnostics[0].message


def test_variables_that_files_ask_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "serve.sh"
    script.write_text(
        ': "${MODEL:?}"\nif [ "$TP" = 8 ]; then EP=--enable-expert-parallel; fi\nbash -c \'vllm serve $MODEL -tp $TP $0\' $EP\n'
    )
    compose = tmp_path / "compose.yaml"
    compose.write_text(
        "services:\n  engine:\n    image: vllm/vllm-openai\n    command: --model ${MODEL} -tp ${TP:-4} --enable-expert-parallel\n"
    )
    given = ["--gpu", "h200", "--prompt-tokens", "2048", "--output-tokens", "512"]
    for path in (script, compose):
        assert (
            main(
                [
                    "import",
                    "--from",
                    "auto",
                    *given,
                    "--set",
                    "MODEL=deepseek-ai/DeepSeek-V3",
                    "--set",
                    "TP=8",
                    str(path),
                ]
            )
            == 0
        )
        text = capsys.readouterr().out
        assert 'model from "deepseek-v3"' in text and "attention { tp = 8 }" in text and "experts { ep = 8 }" in text
        assert main(["import", "--from", "auto", *given, "--set", "TP=8", str(path)]) == 2
        assert "--set NAME=VALUE gives a file a variable" in capsys.readouterr().err
    for wrong, source in (("TP", "auto"), ("=8", "auto"), ("1X=2", "auto"), ("X=a\x01b", "auto"), ("TP=8", "vllm")):
        assert main(["import", "--from", source, "--set", wrong, "--", str(script)]) == 2
        assert "error[E14]" in capsys.readouterr().err
