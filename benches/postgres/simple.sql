-- One charge as a service begins with it: a row, and two sums, in one transaction.
\set n :n + 1
\set run :client_id * 1000000000000 + :turn * 10000000000 + :n
\set tenant random(0, 999)
\set project random(0, 2)
\set cpu_us 123456 + :n % 1000
BEGIN;
INSERT INTO simple_entry (run, tenant, project, cpu_us, cost) VALUES (:run, :tenant, :project, :cpu_us, 0.000002728384);
UPDATE simple_project SET cpu_us = cpu_us + :cpu_us, cost = cost + 0.000002728384 WHERE tenant = :tenant AND project = :project;
UPDATE simple_tenant SET cpu_us = cpu_us + :cpu_us, cost = cost + 0.000002728384 WHERE tenant = :tenant;
COMMIT;
