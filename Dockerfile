# docker build -t iart . && docker run --rm -v "$PWD:/videos" iart upscale in.mkv
# The page: docker run --rm -it -p 7860:7860 -v "$PWD:/videos" iart serve . --host 0.0.0.0 --port 7860
# Not built or run where it was written: it follows the README.
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY . /iart
RUN pip install --no-cache-dir '/iart[web]'
WORKDIR /videos
ENTRYPOINT ["iart"]
