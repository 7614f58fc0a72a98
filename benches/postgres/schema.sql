-- The tables of both scripts: 1,000 tenants with 3 projects, 15 functions and 2 keys each, as the
-- ledger's benches have them. Pages are left half empty where rows are updated, so that an update
-- stays on its page and touches no index.

-- For simple.sql.
CREATE TABLE simple_entry (
    run bigint PRIMARY KEY, tenant int NOT NULL, project int NOT NULL,
    at timestamptz NOT NULL DEFAULT now(), cpu_us bigint NOT NULL, cost numeric(38, 12) NOT NULL);
CREATE TABLE simple_tenant (
    tenant int PRIMARY KEY, cpu_us bigint NOT NULL DEFAULT 0, cost numeric(38, 12) NOT NULL DEFAULT 0)
    WITH (fillfactor = 50);
CREATE TABLE simple_project (
    tenant int, project int, cpu_us bigint NOT NULL DEFAULT 0, cost numeric(38, 12) NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, project)) WITH (fillfactor = 50);
INSERT INTO simple_tenant SELECT generate_series(0, 999);
INSERT INTO simple_project SELECT t, p FROM generate_series(0, 999) t, generate_series(0, 2) p;

-- For equal.sql. A scope has all its windows in one row: kind 0 is the tenant, 1 a project, 2 a
-- function, 3 a key. Limits are on tenants and projects, by day and month, as in the ledger's load.
CREATE TABLE scope (
    tenant int, kind int, number int,
    day date NOT NULL DEFAULT '2026-11-01', month date NOT NULL DEFAULT '2026-11-01',
    day_runs bigint NOT NULL DEFAULT 0, day_us bigint NOT NULL DEFAULT 0,
    month_runs bigint NOT NULL DEFAULT 0, month_us bigint NOT NULL DEFAULT 0,
    held_runs bigint NOT NULL DEFAULT 0, held_us bigint NOT NULL DEFAULT 0,
    day_runs_max bigint NOT NULL DEFAULT 1::bigint << 60, day_us_max bigint NOT NULL DEFAULT 1::bigint << 60,
    month_runs_max bigint NOT NULL DEFAULT 1::bigint << 60, month_us_max bigint NOT NULL DEFAULT 1::bigint << 60,
    concurrency bigint NOT NULL DEFAULT 1000,
    PRIMARY KEY (tenant, kind, number)) WITH (fillfactor = 50);
INSERT INTO scope (tenant, kind, number)
    SELECT t, kind, number FROM generate_series(0, 999) t,
        (VALUES (0, 1), (1, 3), (2, 15), (3, 2)) kinds (kind, many), generate_series(0, many - 1) number;

CREATE TABLE hold (
    run bigint PRIMARY KEY, tenant int NOT NULL, project int NOT NULL, function int NOT NULL,
    key int NOT NULL, image text NOT NULL, tags jsonb NOT NULL, opened_at timestamptz NOT NULL,
    cpu_us bigint NOT NULL, memory_byte_ms bigint NOT NULL, amount numeric(38, 12) NOT NULL);

CREATE TABLE entry (
    seq bigint GENERATED ALWAYS AS IDENTITY, run bigint NOT NULL UNIQUE, tenant int NOT NULL,
    project int NOT NULL, function int NOT NULL, key int NOT NULL, image text NOT NULL,
    tags jsonb NOT NULL, opened_at timestamptz NOT NULL, settled_at timestamptz NOT NULL DEFAULT now(),
    outcome text NOT NULL, cpu_us bigint NOT NULL, wall_us bigint NOT NULL,
    memory_byte_ms bigint NOT NULL, overrun_us bigint NOT NULL,
    cost_runs numeric(38, 12) NOT NULL, cost_cpu numeric(38, 12) NOT NULL,
    cost_memory numeric(38, 12) NOT NULL);
CREATE INDEX ON entry (tenant, opened_at);

-- Usage by tenant, project and function, in slots of a quarter of an hour and in months: what the
-- ledger's view keeps. Everything else is a sum over these.
CREATE TABLE usage_slot (
    tenant int, slot timestamptz, project int, function int, runs bigint NOT NULL,
    cpu_us bigint NOT NULL, memory_byte_ms numeric NOT NULL, cost numeric(38, 12) NOT NULL,
    PRIMARY KEY (tenant, slot, project, function)) WITH (fillfactor = 50);
CREATE TABLE usage_month (
    tenant int, month date, project int, function int, runs bigint NOT NULL,
    cpu_us bigint NOT NULL, memory_byte_ms numeric NOT NULL, cost numeric(38, 12) NOT NULL,
    PRIMARY KEY (tenant, month, project, function)) WITH (fillfactor = 50);

-- Holds the worst case in one scope, if there is room. A window that has passed begins again.
CREATE FUNCTION hold_in(_tenant int, _kind int, _number int, _day date, _us bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _month date := date_trunc('month', _day);
BEGIN
    UPDATE scope SET
        day_runs = CASE WHEN day = _day THEN day_runs ELSE 0 END,
        day_us = CASE WHEN day = _day THEN day_us ELSE 0 END,
        month_runs = CASE WHEN month = _month THEN month_runs ELSE 0 END,
        month_us = CASE WHEN month = _month THEN month_us ELSE 0 END,
        day = _day, month = _month, held_runs = held_runs + 1, held_us = held_us + _us
    WHERE tenant = _tenant AND kind = _kind AND number = _number AND held_runs < concurrency
        AND CASE WHEN day = _day THEN day_runs ELSE 0 END + held_runs + 1 <= day_runs_max
        AND CASE WHEN day = _day THEN day_us ELSE 0 END + held_us + _us <= day_us_max
        AND CASE WHEN month = _month THEN month_runs ELSE 0 END + held_runs + 1 <= month_runs_max
        AND CASE WHEN month = _month THEN month_us ELSE 0 END + held_us + _us <= month_us_max;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no room in scope % % of tenant %', _kind, _number, _tenant;
    END IF;
END $$;

-- One transaction: the worst case is set aside in four scopes, each checked against its limits. All
-- take their locks in the same order, the tenant's, which most wait for, last.
CREATE FUNCTION hold(_run bigint, _tenant int, _project int, _function int, _key int, _minute bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _at timestamptz := timestamptz '2026-11-01 00:00:00+00' + _minute * interval '1 minute';
    _day date := _at::date;
    _us bigint := 500000;
    _memory bigint := (256::bigint << 20) * 1000;
BEGIN
    PERFORM hold_in(_tenant, 2, _function, _day, _us);
    PERFORM hold_in(_tenant, 3, _key, _day, _us);
    PERFORM hold_in(_tenant, 1, _project, _day, _us);
    PERFORM hold_in(_tenant, 0, 0, _day, _us);
    INSERT INTO hold VALUES (_run, _tenant, _project, _function, _key, 'sha256:9f86d081884c',
        '{"cost_center": "42"}', _at, _us, _memory,
        0.0000002 + _us * 0.000014 / 1000000 + _memory * 0.0000045 / (1000 * (1::numeric * (1 << 30))));
END $$;

-- What was held in one scope becomes what was used.
CREATE FUNCTION settle_in(_tenant int, _kind int, _number int, _day date, _held_us bigint, _us bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE scope SET
        held_runs = held_runs - 1, held_us = held_us - _held_us,
        day_runs = day_runs + (day = _day)::int,
        day_us = day_us + (day = _day)::int * _us,
        month_runs = month_runs + (month = date_trunc('month', _day)::date)::int,
        month_us = month_us + (month = date_trunc('month', _day)::date)::int * _us
    WHERE tenant = _tenant AND kind = _kind AND number = _number;
END $$;

-- The other transaction: the hold goes, an entry comes, four scopes and both rollups follow.
CREATE FUNCTION settle(_run bigint, _measured_us bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _hold hold%ROWTYPE;
    _seq bigint;
    _us bigint;
    _day date;
    _memory bigint := (256::bigint << 20) * 200;
    _cost_runs numeric(38, 12) := 0.0000002;
    _cost_cpu numeric(38, 12);
    _cost_memory numeric(38, 12) := _memory * 0.0000045 / (1000 * (1::numeric * (1 << 30)));
BEGIN
    DELETE FROM hold WHERE run = _run RETURNING * INTO STRICT _hold;
    _us := least(_measured_us, _hold.cpu_us);
    _day := _hold.opened_at::date;
    _cost_cpu := _us * 0.000014 / 1000000;
    INSERT INTO entry (run, tenant, project, function, key, image, tags, opened_at, outcome, cpu_us,
        wall_us, memory_byte_ms, overrun_us, cost_runs, cost_cpu, cost_memory)
    VALUES (_run, _hold.tenant, _hold.project, _hold.function, _hold.key, _hold.image, _hold.tags,
        _hold.opened_at, 'exited', _us, 200000, _memory, _measured_us - _us, _cost_runs, _cost_cpu,
        _cost_memory)
    RETURNING seq INTO _seq;
    PERFORM settle_in(_hold.tenant, 2, _hold.function, _day, _hold.cpu_us, _us);
    PERFORM settle_in(_hold.tenant, 3, _hold.key, _day, _hold.cpu_us, _us);
    PERFORM settle_in(_hold.tenant, 1, _hold.project, _day, _hold.cpu_us, _us);
    PERFORM settle_in(_hold.tenant, 0, 0, _day, _hold.cpu_us, _us);
    INSERT INTO usage_slot AS u VALUES (_hold.tenant,
        date_bin('15 minutes', _hold.opened_at, '2026-11-01 00:00:00+00'), _hold.project,
        _hold.function, 1, _us, _memory, _cost_runs + _cost_cpu + _cost_memory)
    ON CONFLICT (tenant, slot, project, function) DO UPDATE SET runs = u.runs + 1,
        cpu_us = u.cpu_us + EXCLUDED.cpu_us, memory_byte_ms = u.memory_byte_ms + EXCLUDED.memory_byte_ms,
        cost = u.cost + EXCLUDED.cost;
    INSERT INTO usage_month AS u VALUES (_hold.tenant, date_trunc('month', _day), _hold.project,
        _hold.function, 1, _us, _memory, _cost_runs + _cost_cpu + _cost_memory)
    ON CONFLICT (tenant, month, project, function) DO UPDATE SET runs = u.runs + 1,
        cpu_us = u.cpu_us + EXCLUDED.cpu_us, memory_byte_ms = u.memory_byte_ms + EXCLUDED.memory_byte_ms,
        cost = u.cost + EXCLUDED.cost;
    RETURN _seq;
END $$;

VACUUM ANALYZE;
