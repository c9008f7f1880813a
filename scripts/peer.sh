#!/usr/bin/env bash
# Make PEER, an environment for the program that `penstock bench voice` is compared with, on top of VENV.
# It is one of its own because torchaudio, which whisperlivekit wants and does not use, breaks `import transformers`
# where it was built for another CUDA than torch. Usage: scripts/peer.sh VENV PEER
set -euo pipefail

venv=$1 peer=$2
packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

echo "Making $peer ..."
"$venv/bin/python" -m venv --clear "$peer"
packages "$venv" > "$(packages "$peer")/penstock.pth"
"$peer/bin/python" -m pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 \
  --constraint constraints.txt --constraint constraints-peer.txt whisperlivekit </dev/null
echo "whisperlivekit is in $peer; \`penstock bench voice\` looks there."
