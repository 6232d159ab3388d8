#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, in the folder secrets (or the one named). What is there stays.
set -eu
folder=${1:-secrets}

mkdir -p "$folder"
chmod 700 "$folder" # of the host only its owner gets in; a container sees the single files that it is given

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

keep() {
    [ -s "$folder/$1" ] || printf '%s' "$2" >"$folder/$1"
    chmod 644 "$folder/$1" # read by the users of several containers
}

keep secret_key "$(random)"
keep database_password "$(random)"
keep database_url "postgresql+psycopg://extract_image:$(cat "$folder/database_password")@postgres:5432/extract_image"
keep redis_password "$(random)"
keep redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
keep aws_secret_access_key "$(random)"
keep metrics_token "$(random)"
keep gemini_api_key ''
[ -s "$folder/gemini_api_key" ] || echo "Put your Gemini key in $folder/gemini_api_key, or set ENGINE=ocr in production.env."
