"""Files of `deploy/`: each parses, and they agree with each other."""

import pathlib
import re
import subprocess

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parents[1] / "deploy"
CONFIGS = ("models.config", "batching.config", "monitoring.config")


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def text_message(name, fields):
    """Parses a text protocol buffer whose Python class no package brings.

    Args:
        name: of a file in `deploy/`.
        fields: name -> kind ("bool", "int64" or "string"), or a dict for a message.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, text_format
    from google.protobuf.message_factory import GetMessageClass

    file = descriptor_pb2.FileDescriptorProto(name=name, package="test")

    def add(title, fields):
        message = file.message_type.add(name=title)
        for number, (field_name, kind) in enumerate(fields.items(), 1):
            field = message.field.add(name=field_name, number=number, label=1)
            if isinstance(kind, dict):
                child = f"{title}_{field_name}"
                field.type, field.type_name = 11, f".test.{child}"
                add(child, kind)
            else:
                field.type = {"int64": 3, "bool": 8, "string": 9}[kind]

    add("Root", fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    root = GetMessageClass(pool.FindMessageTypeByName("test.Root"))()
    return text_format.Parse((DEPLOY / name).read_text(), root)


def test_models_config_is_a_message_of_tf_serving():
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = (DEPLOY / "models.config").read_text()
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (config,) = parsed.model_config_list.config
    assert (config.name, config.base_path) == ("shapes", "/models/shapes")
    assert config.model_version_policy.latest.num_versions == 2


def test_batching_and_monitoring_have_the_fields_of_tf_serving():
    # session_bundle_config.proto's BatchingParameters and monitoring_config.proto.
    names = (
        *("max_batch_size", "batch_timeout_micros"),
        *("num_batch_threads", "max_enqueued_batches"),
    )
    batching = text_message(
        "batching.config", {name: {"value": "int64"} for name in names}
    )
    assert batching.max_batch_size.value == 32
    monitoring = text_message(
        "monitoring.config", {"prometheus_config": {"enable": "bool", "path": "string"}}
    )
    assert monitoring.prometheus_config.enable
    (scraped,) = documents("prometheus.yaml")[0]["scrape_configs"]
    assert scraped["metrics_path"] == monitoring.prometheus_config.path


def test_compose_mounts_what_its_command_names():
    (compose,) = documents("docker-compose.yaml")
    serving = compose["services"]["serving"]
    mounted = {
        volume.split(":")[0]: volume.split(":")[1]
        for volume in serving["volumes"]
        if volume.startswith("./")
    }
    for source, target in mounted.items():
        assert (DEPLOY / source).exists()
        assert any(word.endswith(target) for word in serving["command"])
    assert all(port.startswith("127.0.0.1:") for port in serving["ports"])
    scraped = compose["services"]["prometheus"]["volumes"][0].split(":")[0]
    assert (DEPLOY / scraped).exists()


def test_kubernetes_probes_the_model_of_the_config():
    deployment, service = documents("kubernetes.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for name in CONFIGS:
        assert f"/config/{name}" in " ".join(container["args"])
        assert f"--from-file=deploy/{name}" in (DEPLOY / "kubernetes.yaml").read_text()
    named = re.search('name: "(.*)"', (DEPLOY / "models.config").read_text())[1]
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{named}"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels


def test_kserve_names_a_format_and_a_folder():
    (found,) = documents("kserve.yaml")
    assert found["kind"] == "InferenceService"
    model = found["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorflow"}
    assert model["storageUri"].endswith("/shapes")


def test_scripts_are_well_formed():
    subprocess.run(["bash", "-n", DEPLOY / "ask.sh"], check=True)
    compile((DEPLOY / "ask_grpc.py").read_text(), "ask_grpc.py", "exec")


def test_every_file_is_tested():
    assert {path.name for path in DEPLOY.iterdir()} == {
        *CONFIGS,
        "docker-compose.yaml",
        "prometheus.yaml",
        "kubernetes.yaml",
        "kserve.yaml",
        "ask.sh",
        "ask_grpc.py",
        "Dockerfile.serve",  # tests/test_images.py
        "Dockerfile.train",
    }
