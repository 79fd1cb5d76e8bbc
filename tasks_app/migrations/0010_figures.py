import django.db.models.deletion
from django.db import migrations, models

import tasks_app.models.histogram

# Histograms become numbers, in which each bucket has twelve digits to itself.
PACK = """
CREATE FUNCTION pg_temp.packed(histogram integer[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(sum(number::numeric * ('1' || repeat('0', 12 * (place::int - 1)))::numeric), 0)
  FROM unnest(histogram) WITH ORDINALITY AS bucket(number, place)
$$;
ALTER TABLE tasks_app_runstat
  ALTER COLUMN waits TYPE numeric USING pg_temp.packed(waits),
  ALTER COLUMN lengths TYPE numeric USING pg_temp.packed(lengths)
"""

FILL_QUEUES = """
INSERT INTO tasks_app_queuestat (grain, at, queue_name, status, count, waits, lengths, waited, ran)
SELECT grain, at, queue_name, status, sum(count), sum(waits), sum(lengths), sum(waited), sum(ran)
FROM tasks_app_runstat GROUP BY grain, at, queue_name, status
"""

FILL_FAILURES = """
INSERT INTO tasks_app_failurestat (group_id, grain, at, queue_name, count)
SELECT failure_group_id, grain, date_trunc(name, finished_at, 'UTC') AS at, queue_name, count(*)
FROM tasks_app_taskrun,
  (VALUES (60, 'minute', interval '2 days'), (3600, 'hour', interval '40 days'), (86400, 'day', interval '800 days'))
    AS known(grain, name, kept)
WHERE failure_group_id IS NOT NULL AND finished_at > now() - kept
GROUP BY failure_group_id, grain, name, at, queue_name
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tasks_app', '0009_finding'),
    ]

    operations = [
        migrations.RunSQL(
            PACK,
            migrations.RunSQL.noop,
            state_operations=[
                migrations.AlterField(
                    model_name='runstat',
                    name=name,
                    field=tasks_app.models.histogram.HistogramField(help_text=told),
                )
                for name, told in (
                    ('waits', 'How many of them waited how long; see `BUCKETS`.'),
                    ('lengths', 'How many of them ran how long in their last attempt.'),
                )
            ],
        ),
        migrations.CreateModel(
            name='QueueStat',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('grain', models.IntegerField(choices=[(60, 'Minute'), (3600, 'Hour'), (86400, 'Day')])),
                ('at', models.DateTimeField(help_text='When its time begins.')),
                ('queue_name', models.CharField(max_length=100)),
                ('status', models.CharField(choices=[('READY', 'Ready'), ('RUNNING', 'Running'), ('SUCCESSFUL', 'Successful'), ('FAILED', 'Failed'), ('CANCELLED', 'Cancelled')], max_length=10)),
                ('count', models.IntegerField()),
                ('waits', tasks_app.models.histogram.HistogramField(help_text='How many of them waited how long; see `BUCKETS`.')),
                ('lengths', tasks_app.models.histogram.HistogramField(help_text='How many of them ran how long in their last attempt.')),
                ('waited', models.FloatField(help_text='Seconds, all of them together.')),
                ('ran', models.FloatField(help_text='Seconds, all of them together.')),
            ],
        ),
        migrations.AddConstraint(
            model_name='queuestat',
            constraint=models.UniqueConstraint(fields=('grain', 'at', 'queue_name', 'status'), name='queuestat_one_of_each'),
        ),
        migrations.RunSQL(FILL_QUEUES, migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name='runstat',
            index=models.Index(fields=['task_path', 'grain', 'at'], name='runstat_task'),
        ),
        migrations.AddField(
            model_name='failuregroup',
            name='muted_at',
            field=models.DateTimeField(help_text='Since when nobody is to hear of it.', null=True),
        ),
        migrations.AddField(
            model_name='failuregroup',
            name='muted_until',
            field=models.DateTimeField(help_text='When it is heard of again; empty: never.', null=True),
        ),
        migrations.AddField(
            model_name='failuregroup',
            name='muted_by',
            field=models.CharField(blank=True, default='', max_length=150),
        ),
        migrations.AddField(
            model_name='failuregroup',
            name='note',
            field=models.CharField(blank=True, default='', help_text='Why, in their words.', max_length=500),
        ),
        migrations.AlterField(
            model_name='failuregroup',
            name='dismissed_at',
            field=models.DateTimeField(help_text='Somebody was done with it; the next one brings it back.', null=True),
        ),
        migrations.AddIndex(
            model_name='failuregroup',
            index=models.Index(fields=['-count', '-id'], name='failuregroup_most'),
        ),
        migrations.CreateModel(
            name='FailureStat',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('grain', models.IntegerField(choices=[(60, 'Minute'), (3600, 'Hour'), (86400, 'Day')])),
                ('at', models.DateTimeField(help_text='When its time begins.')),
                ('queue_name', models.CharField(max_length=100)),
                ('count', models.IntegerField()),
                ('group', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='stats', to='tasks_app.failuregroup')),
            ],
            options={
                'indexes': [models.Index(fields=['grain', 'at'], name='failurestat_time')],
                'constraints': [models.UniqueConstraint(fields=('group', 'grain', 'at', 'queue_name'), name='failurestat_one_of_each')],
            },
        ),
        migrations.RunSQL(FILL_FAILURES, migrations.RunSQL.noop),
    ]
