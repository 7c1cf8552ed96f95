#!/bin/sh
# An afternoon in a source tree (SymPy 1.13.3, a pure Python package): searching again and again in the part one works
# on, now and then in all of it, an archive of everything in between, then the work moves on to another part.
# `make` fetches and unpacks the sources here, `run` is what was recorded.
set -eu

make() {
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest wheel sympy==1.13.3
    python3 -m zipfile -e wheel/*.whl .
    rm -r wheel
}

search() { # DIRECTORIES WORD ...
    directories=$1 && shift
    for word; do grep -rc --include='*.py' "$word" $directories >/dev/null || true; done
    sleep 2 # reading what was found; the kernel folds its statistics every two seconds
}

run() {
    cd sympy
    here="core functions simplify solvers"
    there="polys matrices physics/quantum"
    search "$here" Symbol Integer subs evalf assume _eval
    search "$here" Rational expand Pow hash args func
    search . deprecated
    search "$here" Mul cache nsimplify sqrt
    tar -cf - . | wc -c >/dev/null
    search "$here" Add powsimp trig solve
    search "$there" Poly Matrix domain gcd factor resultant
    search "$there" ring field groebner rank det inverse
    search . TODO
    search "$there" monomial degree lift modulus
    search "$here" Symbol Integer subs
    search "$there" Matrix domain
}

"$1"
