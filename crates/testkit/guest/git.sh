# A git repository with as many files as COUNT says: add, commit, change, gc.
set -e
. /job/lib.sh

git config --global user.name guest
git config --global user.email guest@example.org
git config --global advice.detachedHead false

step "$COUNT files"
git init -q -b main work
cd work
perl -e '
    for my $number (1 .. $ARGV[0]) {
        my $folder = "folder" . $number % 37;
        mkdir $folder;
        open my $file, ">", "$folder/file$number" or die "$folder/file$number: $!";
        print $file "file $number\n" x ($number % 50 + 1);
        close $file or die "close: $!";
    }' "$COUNT"

step "add and commit"
git add .
git commit -q -m "All files"
same "$(git status --porcelain)" "" "status after the commit"
same "$(git ls-files | wc -l)" "$COUNT" "files"

step "change, rename, remove, branch and back"
git checkout -q -b change
git mv folder1 renamed
git rm -q -r folder2
echo changed >>folder3/file3
git commit -q -a -m "Changes"
git checkout -q main
[ -e folder2/file2 ] || fail "folder2/file2 has not come back"
same "$(git status --porcelain)" "" "status after switching back"
git merge -q change
same "$(git status --porcelain)" "" "status after the merge"

step "gc and fsck"
git gc -q
git fsck --full --strict --no-progress
same "$(git count-objects)" "0 objects, 0 kilobytes" "loose objects"
same "$(git status --porcelain)" "" "status after gc"
step "done"
