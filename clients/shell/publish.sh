#!/bin/sh
# Publish a recorded conversation to omi-diarization over its HTTP door, and print who spoke when. Needs curl.
#
#   OMI_HTTP_TOKEN=… sh publish.sh call-1 call.wav            # prints WebVTT
#   OMI_HTTP_TOKEN=… sh publish.sh call-1 call.wav rttm       # or srt, json
#
# An answer 200 or 202 is the bridge's receipt: from then on the audio is its to lose. Receipts and refusals are printed
# on stderr. The ids stay the same however often this is run for a file, so that what was accepted is not there twice.
set -eu

conversation=${1:?"usage: publish.sh CONVERSATION AUDIO [vtt|srt|rttm|json]"}
audio=${2:?"usage: publish.sh CONVERSATION AUDIO [vtt|srt|rttm|json]"}
format=${3:-vtt}
door=${OMI_HTTP_URL:-http://127.0.0.1:8765}/v1/conversations/$conversation
timeout_s=${OMI_TIMEOUT_S:-3600}
chunk=f-$({ sha256sum 2>/dev/null || shasum -a 256; } <"$audio" | cut -c 1-32)

# The token goes in a file that only we can read: on the command line every user of the machine could.
secret=$(mktemp)
trap 'rm -f "$secret"' EXIT
printf 'header = "Authorization: Bearer %s"\n' "${OMI_HTTP_TOKEN:-}" >"$secret"

call() { # what fails for now (408, 429, 5xx, no connection) is tried again; a refusal is printed, and ends this
    curl --silent --show-error --fail-with-body --config "$secret" \
        --retry 12 --retry-connrefused --retry-max-time "$timeout_s" "$@"
}

say() { # TYPE [MORE FIELDS]
    call --write-out '\n' -H 'Content-Type: application/json' "$door/events" >&2 -d \
        "{\"schema\": \"conversation-event\", \"version\": \"1.2\", \"event_id\": \"$1-$chunk\", \"type\": \"$1\"${2:-}}"
}

call --write-out '\n' -H 'Content-Type: application/octet-stream' -X POST -T "$audio" "$door/audio?chunk_id=$chunk" >&2
say completed ', "chunks": 1'

waited_s=0
until call "$door/export?format=json" | grep -q '"is_final": *true'; do
    if [ "$waited_s" -ge "$timeout_s" ]; then
        echo "publish.sh: no labels within $timeout_s s: is an agent live and allowed? See omi-bridge agents" >&2
        exit 1
    fi
    sleep 1
    waited_s=$((waited_s + 1))
done
call "$door/export?format=$format"
