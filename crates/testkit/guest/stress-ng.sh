# Every stressor of stress-ng's file system class, eight at a time, each for $SECS seconds in a folder of its own below
# $PLACE. Those that did not pass run once more below $BESIDE, where no share is. Prints what each said, and then
# `== share NAME CODE` or `== store NAME CODE`. $STRESS_NG is how the program is started.
logs=$(mktemp -d)
export SECS STRESS_NG

cat >"$logs/one" <<'END_OF_ONE'
# PLACE LOG NAME
mkdir "$1/$3" && cd "$1/$3" || exit 255
$STRESS_NG "--$3" 1 --timeout "$SECS" --verify --temp-path "$1/$3" >"$2-$3.log" 2>&1
echo "$?" >"$2-$3.code"
END_OF_ONE

# Names come on standard input.
round() {
    mkdir -p "$1"
    xargs -r -P 8 -n 1 sh "$logs/one" "$1" "$logs/$2"
    for code in "$logs/$2"-*.code; do
        [ -f "$code" ] || continue
        name=${code#"$logs/$2"-}
        name=${name%.code}
        cat "$logs/$2-$name.log"
        echo "== $2 $name $(cat "$code")"
    done
}

not_passed() {
    for code in "$logs"/share-*.code; do
        if [ "$(cat "$code")" != 0 ] || grep -qi skip "${code%.code}.log"; then
            name=${code#"$logs"/share-}
            echo "${name%.code}"
        fi
    done
}

$STRESS_NG --class 'filesystem?' | sed 's/.*stressors: //' | round "$PLACE" share
not_passed | round "$BESIDE" store
cd /
rm -rf "$logs"
