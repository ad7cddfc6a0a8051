#!/bin/sh
# Starts the sensor with the configuration beside this script.
cd "$(dirname "$0")" || exit 1
exec thermometer --config thermometer.yaml
