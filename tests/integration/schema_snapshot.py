"""What a schema holds, as text that can be compared: definitions out of pg_catalog, and the rows of its tables.

Object identifiers, the numbers of dropped columns and the values of sequences are left out: they differ between
two ways to the same schema. So are the tables of pg_migrate itself.
"""

from __future__ import annotations

from typing import Any

_DEFINITIONS = """
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
SELECT format('relation %%s: %%s %%s %%s %%s', relname, relkind, relpersistence, reloptions,
              obj_description(pg_class.oid, 'pg_class'))
  FROM pg_class WHERE relnamespace = (TABLE space) AND relkind <> 'c'
UNION ALL
SELECT format('column %%s.%%s: %%s %%s notnull=%%s default=%%s identity=%%s generated=%%s comment=%%s', relname,
              attname, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), format_type(atttypid, atttypmod),
              attnotnull, pg_get_expr(adbin, adrelid), attidentity, attgenerated, col_description(attrelid, attnum))
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
       LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace = (TABLE space) AND relkind IN ('r', 'p', 'v', 'm') AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT format('index %%s: %%s valid=%%s ready=%%s', relname, pg_get_indexdef(indexrelid), indisvalid, indisready)
  FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = (TABLE space)
UNION ALL
SELECT format('constraint %%s of %%s: %%s valid=%%s', conname, conrelid::regclass, pg_get_constraintdef(oid),
              convalidated)
  FROM pg_constraint WHERE connamespace = (TABLE space)
UNION ALL
SELECT format('view %%s: %%s', relname, pg_get_viewdef(oid))
  FROM pg_class WHERE relnamespace = (TABLE space) AND relkind IN ('v', 'm')
UNION ALL
SELECT format('function %%s: %%s', proname, pg_get_functiondef(oid))
  FROM pg_proc WHERE pronamespace = (TABLE space) AND prokind IN ('f', 'p')
UNION ALL
SELECT format('trigger %%s: %%s', tgname, pg_get_triggerdef(pg_trigger.oid))
  FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = (TABLE space) AND NOT tgisinternal
UNION ALL
SELECT format('enum %%s: %%s', typname, string_agg(enumlabel, ', ' ORDER BY enumsortorder))
  FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid
 WHERE typnamespace = (TABLE space) GROUP BY typname
UNION ALL
SELECT format('sequence %%s: %%s %%s %%s %%s %%s', relname, format_type(seqtypid, NULL), seqstart, seqincrement,
              seqmin, seqmax)
  FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE relnamespace = (TABLE space)
"""

_TRACKING = ("migrations", "migrations_unfinished")


def _is_of_the_tracking_table(line: str) -> bool:
    name = line.split(" ", 2)[1]
    return name.startswith("migrations") or any(f" of {table}:" in line for table in _TRACKING)


def snapshot(cursor: Any, schema: str = "public") -> frozenset[str]:
    """One line per object and per table's rows.

    Args:
        cursor: of a psycopg2 connection in autocommit mode.
        schema: the schema; its name is left out, so that two schemas can be compared.
    """
    cursor.execute("SET search_path TO pg_catalog")
    cursor.execute(_DEFINITIONS, {"schema": schema})
    lines = {line.replace(f"{schema}.", "") for (line,) in cursor.fetchall()}
    lines = {line for line in lines if not _is_of_the_tracking_table(line)}
    for table in sorted(
        line.split(" ")[1].rstrip(":") for line in lines if line.startswith("relation ") and ": r " in line
    ):
        cursor.execute(
            f"""SELECT count(*), md5(string_agg(row::text, chr(10) ORDER BY row::text COLLATE "C"))
                  FROM "{schema}"."{table}" AS row"""
        )
        lines.add(f"rows {table}: {cursor.fetchone()}")
    return frozenset(lines)


def difference(found: frozenset[str], expected: frozenset[str]) -> str:
    """What is there and should not be (+), and what is missing (-)."""
    return "\n".join(
        [f"+ {line}" for line in sorted(found - expected)] + [f"- {line}" for line in sorted(expected - found)]
    )
