from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tasks_app', '0011_run_page'),
    ]

    operations = [
        migrations.AddField(
            model_name='cluster',
            name='restart_at',
            field=models.DateTimeField(blank=True, help_text='When somebody wished last that its workers are replaced by fresh ones.', null=True),
        ),
        migrations.AddField(
            model_name='cluster',
            name='report',
            field=models.JSONField(blank=True, help_text='What it tells of itself and its workers, see `engine/account.py`; empty of an older release.', null=True),
        ),
        migrations.AddField(
            model_name='cluster',
            name='rescue',
            field=models.JSONField(blank=True, help_text='By which cluster, and the first of those runs.', null=True),
        ),
        migrations.AddField(
            model_name='cluster',
            name='forgotten_at',
            field=models.DateTimeField(blank=True, help_text='When somebody had seen that it was lost, and wished to see it no more.', null=True),
        ),
        migrations.AddField(
            model_name='queue',
            name='is_drained',
            field=models.BooleanField(db_default=False, default=False, help_text='It is paused with all the others, and goes on with them.'),
        ),
    ]
