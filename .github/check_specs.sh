#!/usr/bin/env bash
# The step of action.yml: checks the specs that $SPECS names. $FORMAT, $FAIL and $SARIF_FILE are inputs of the action.
set -euo pipefail
shopt -s globstar nullglob

wrong() {
  echo "::error title=dagc::$1"
  exit 2
}

case "$FORMAT" in github | sarif) ;; *) wrong "format is github or sarif" ;; esac
case "$FAIL" in
  requirement) passes=0 ;;
  error) passes=1 ;;
  never) passes=255 ;;
  *) wrong "fail is requirement, error or never" ;;
esac

found=()
while IFS= read -r pattern; do
  IFS=
  # shellcheck disable=SC2206  # a pattern is to be expanded; without IFS it is not split
  [ -z "$pattern" ] || found+=($pattern)
done <<<"$SPECS"
[ ${#found[@]} -gt 0 ] || wrong "no file matches the input specs"

code=0
if [ "$FORMAT" = sarif ]; then
  dagc check --format sarif -- "${found[@]}" >"$SARIF_FILE" || code=$?
  echo "sarif-file=$SARIF_FILE" >>"$GITHUB_OUTPUT"
else
  dagc check --format github -- "${found[@]}" || code=$?
fi
echo "exit-code=$code" >>"$GITHUB_OUTPUT"
[ "$code" -le "$passes" ] || exit "$code"
