import django.contrib.postgres.indexes
from django.db import migrations, models

# Entries stay as they were written. What a deleted user leaves is the name; letting go of the row is no change of it.
GUARD = """
CREATE FUNCTION tasks_app_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.actor_id IS NULL
    AND to_jsonb(NEW) - 'actor_id' = to_jsonb(OLD) - 'actor_id' THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'An entry of the audit is never changed or deleted.';
END $$;
CREATE TRIGGER tasks_app_audit_stays BEFORE UPDATE OR DELETE ON tasks_app_auditentry FOR EACH ROW
EXECUTE FUNCTION tasks_app_audit_stays();
"""
GUARD_NOT = """
DROP TRIGGER tasks_app_audit_stays ON tasks_app_auditentry;
DROP FUNCTION tasks_app_audit_stays();
"""


class Migration(migrations.Migration):

    dependencies = [('tasks_app', '0004_policies_workflows_keys_and_audit')]

    operations = [
        migrations.AlterModelOptions(
            name='taskrun',
            options={'permissions': [('retry_taskrun', 'Can retry runs'), ('cancel_taskrun', 'Can cancel runs')], 'verbose_name': 'run'},
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['actor_name', '-at', '-id'], name='audit_actor_newest'),
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['verb', '-at', '-id'], name='audit_verb_newest'),
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=django.contrib.postgres.indexes.GinIndex(fields=['runs'], name='audit_runs'),
        ),
        migrations.RunSQL(GUARD, GUARD_NOT),
    ]
