#!/bin/sh
# Arguments and environment as TensorFlow Serving's image has them: flags are added to what it serves by default, and
# MODEL_NAME and MODEL_BASE_PATH say what that is. A first word that is no flag is a command of servable, such as doctor.
set -eu

if [ "$#" -gt 0 ] && [ "${1#-}" = "$1" ]; then
    exec servable "$@"
fi

configured=${SERVABLE_CONFIG:+yes}
for word in "$@"; do
    case "$word" in
        --config | --config=*) configured=yes ;;
    esac
done

if [ -n "$configured" ]; then
    exec servable serve --host=0.0.0.0 --port=8500 --rest_api_port=8501 "$@"
fi
exec servable serve --host=0.0.0.0 --port=8500 --rest_api_port=8501 \
    "--model_name=${MODEL_NAME}" "--model_base_path=${MODEL_BASE_PATH}/${MODEL_NAME}" "$@"
