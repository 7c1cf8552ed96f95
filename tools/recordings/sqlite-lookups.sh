#!/bin/sh
# A database session: lookups among recent orders, a report over everything, more lookups, then the interest shifts to
# last year's orders while another report runs in between.  `make` builds the database here, `run` is what was recorded.
set -eu

make() {
    sqlite3 orders.db >/dev/null <<'SQL'
PRAGMA journal_mode = off; PRAGMA synchronous = off;
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, amount INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO orders
SELECT i, i * 7919 % 5003, i * 104729 % 1000, substr(replace(hex(zeroblob(800)), '00', 'word '), 1, 900 + i * 31 % 700) FROM n;
CREATE INDEX by_customer ON orders (customer);
SQL
}

# N lookups, seeded, among the 20000 orders from FIRST on; the cube makes the first ones of them the popular ones.
lookups() { # N SEED FIRST
    echo "WITH RECURSIVE draw(i, x) AS (SELECT 1, $2 UNION ALL SELECT i + 1, (x * 1103515245 + 12345) % 2147483648 FROM draw
          WHERE i < $1) SELECT sum(amount) FROM draw CROSS JOIN orders
          ON id = $3 + CAST(pow(x / 2147483648.0, 3) * 20000 AS INTEGER);"
}
customers() { # N SEED
    echo "WITH RECURSIVE draw(i, x) AS (SELECT 1, $2 UNION ALL SELECT i + 1, (x * 1103515245 + 12345) % 2147483648 FROM draw
          WHERE i < $1) SELECT sum(amount) FROM draw CROSS JOIN orders ON customer = x % 300;"
}
report() { echo "SELECT count(*) FROM orders WHERE note LIKE '%nothing%';"; }

pause() { echo ".shell sleep 2"; } # the kernel folds its statistics every two seconds

run() {
    {
        echo "PRAGMA cache_size = 50;"
        lookups 40000 1 40001
        pause
        report
        lookups 20000 2 40001
        customers 500 3
        pause
        lookups 30000 4 1
        pause
        report
        lookups 30000 5 1
        pause
        lookups 20000 6 40001
    } | sqlite3 orders.db >/dev/null
}

"$1"
