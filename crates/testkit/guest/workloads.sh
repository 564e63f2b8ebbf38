# Whole workloads in the current directory, each with the time that it took: `WORKLOAD name nanoseconds`.
# Runs in a guest and on a host; what a machine lacks the program for is left out.
set -e

timed() {
    name=$1
    shift
    begun=$(date +%s%N)
    "$@" >/dev/null
    ended=$(date +%s%N)
    echo "WORKLOAD $name $((ended - begun))"
}

has() {
    command -v "$1" >/dev/null
}

# What is unpacked comes from elsewhere: reading it is no part of the share's work.
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
perl -e '
    chdir $ARGV[0] or die;
    mkdir "tree";
    for my $number (1 .. $ARGV[1]) {
        my $folder = "tree/folder" . $number % 53;
        mkdir $folder;
        open my $file, ">", "$folder/file$number.c" or die "$folder: $!";
        print $file "int value$number(void) { return $number; }\n" x 1, "/* filler */\n" x ($number % 200);
        close $file;
    }' "$elsewhere" "$FILES"
tar -C "$elsewhere" -cf "$elsewhere/tree.tar" tree

timed "untar" tar -xf "$elsewhere/tree.tar"
timed "find" find tree -newermt 2001-01-01 -size +0
timed "grep -r" grep -r -c "value1" tree

if has git; then
    export HOME="$elsewhere"
    git config --global user.name bench
    git config --global user.email bench@example.org
    git config --global --add safe.directory '*'
    git init -q -b main tree
    timed "git add" git -C tree add .
    git -C tree commit -q -m "All files"
    timed "git status" git -C tree status --porcelain
fi

compile() {
    for number in 1 2 3 4 5 6 7 8 9 10; do
        cc -c -o "tree/$number.o" "tree/folder$number/file$number.c"
    done
}
if has cc; then
    timed "compile" compile
fi

# Many directories of few small files each, and all of it removed again.
modules() {
    perl -e '
        mkdir "modules";
        for my $module (1 .. $ARGV[0]) {
            mkdir "modules/m$module";
            for my $name ("package.json", "index.js", "LICENSE", "README.md") {
                open my $file, ">", "modules/m$module/$name" or die "$name: $!";
                print $file "$module\n";
                close $file;
            }
        }' "$((FILES / 4))"
}
timed "many packages" modules
timed "rm -r" rm -r modules

if has fio; then
    for work in read write randread randwrite; do
        block=4k
        case $work in
        read | write) block=1m ;;
        esac
        # As much for each: 64 MiB in order, 16 MiB at random.
        bytes=64m
        [ $block = 1m ] || bytes=16m
        # shellcheck disable=SC2086
        timed "fio $work $block" fio --name=bench --filename=fio.data --size=64m --io_size=$bytes --bs=$block --rw=$work \
            --ioengine=psync --direct=0 --invalidate=1 --end_fsync=0 --minimal
    done
    rm -f fio.data
fi
rm -rf tree
