"""Asks TF Serving over gRPC about a WAV file and some pictures.

Usage: python deploy/ask_grpc.py MODEL SIGNATURE WAV PICTURE [PICTURE ...]

The signature is one of those that take files, such as `classify_encoded`. Needs
`pip install 'tfavmae[serving]'`.
"""

import sys

from tfavmae.serving.grpc_client import GrpcClient


def main(model: str, signature: str, wav: str, *pictures: str) -> None:
    """Prints the outputs of a signature for one clip."""
    with GrpcClient(model) as client:
        names = client.signatures()[signature].inputs
        files = {"audio_bytes": [wav], "video_bytes": [list(pictures)]}
        answers = client.predict(signature, **{name: files[name] for name in names})
    for name, value in answers.items():
        print(name, value[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
