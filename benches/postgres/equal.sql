-- What the ledger does for one run: a hold and its settlement, each a transaction of one round trip.
-- Time passes as in the ledger's load: five million runs make thirty days.
\set n :n + 1
\set run :client_id * 1000000000000 + :turn * 10000000000 + :n
\set tenant random(0, 999)
\set function random(0, 14)
\set project :function % 3
\set key random(0, 1)
\set minute :turn * 600 + :n * :clients * 43200 / 5000000
\set measured_us 123456 + :n % 1000
SELECT hold(:run, :tenant::int, :project::int, :function::int, :key::int, :minute);
SELECT settle(:run, :measured_us);
