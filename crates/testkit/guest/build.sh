# Unpacks project.tar, which the host put into the share, and builds it.
set -e
. /job/lib.sh

step "unpack"
tar -xf project.tar
cd project

step "build"
make -s check

step "what is up to date is not built again"
make -q wordcount || fail "make would build again"

step "what depends on a changed file is"
touch words.h
make -q wordcount && fail "make sees no change"
make -s check

step "parallel build from clean"
make -s clean
make -s -j4 check
