#!/bin/sh
# Runs a command of the service with the settings and the secrets of its units, as root: sh deploy/systemd/run.sh doctor
# It needs no unit that runs. docs/how-to/systemd.md
set -eu
secrets=/etc/extract-image/secrets
exec systemd-run --quiet --pipe --wait --collect \
    -p DynamicUser=yes -p ProtectSystem=strict -p ProtectHome=yes -p PrivateTmp=yes -p NoNewPrivileges=yes \
    -p WorkingDirectory=/opt/extract-image -p EnvironmentFile=/etc/extract-image/production.env \
    -p LoadCredential=secret_key:$secrets/secret_key \
    -p LoadCredential=database_url:$secrets/database_url \
    -p LoadCredential=redis_url:$secrets/redis_url \
    -p LoadCredential=aws_secret_access_key:$secrets/aws_secret_access_key \
    -p LoadCredential=gemini_api_key:$secrets/gemini_api_key \
    sh -c '
        export SECRET_KEY_FILE=$CREDENTIALS_DIRECTORY/secret_key DATABASE_URL_FILE=$CREDENTIALS_DIRECTORY/database_url \
            REDIS_URL_FILE=$CREDENTIALS_DIRECTORY/redis_url AWS_SECRET_ACCESS_KEY_FILE=$CREDENTIALS_DIRECTORY/aws_secret_access_key \
            GEMINI_API_KEY_FILE=$CREDENTIALS_DIRECTORY/gemini_api_key DATA_DIR=/tmp TMPDIR=/tmp
        exec .venv/bin/extract-image "$@"' sh "$@"
