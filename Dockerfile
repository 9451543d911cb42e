# For GPU hosts: rm -rf dist && uv build --wheel && docker build -t proxythinker . && docker run --gpus all --shm-size 32g -p 30000:30000 \
#     -v ~/.cache/huggingface:/root/.cache/huggingface proxythinker --host 0.0.0.0 --model-path BASE --proxy-expert-path E ...
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-dev python3-venv libnuma1 && \
    rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /env && /env/bin/pip install --no-cache-dir uv==0.13.9
COPY dist/*.whl /wheels/
RUN /env/bin/uv pip install --no-cache --compile-bytecode --python /env/bin/python "$(echo /wheels/*.whl)[pinned]"
ENV PATH=/env/bin:$PATH
ENTRYPOINT ["proxythinker", "serve"]
