import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tasks_app', '0007_statistics'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='schedulerules',
            name='pause_reason',
            field=models.CharField(editable=False, max_length=500, null=True),
        ),
        migrations.AddField(
            model_name='schedulerules',
            name='paused_at',
            field=models.DateTimeField(editable=False, help_text='Since when it does not fire.', null=True),
        ),
        migrations.AddField(
            model_name='schedulerules',
            name='paused_by',
            field=models.ForeignKey(db_index=False, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='schedulerules',
            name='paused_until',
            field=models.DateTimeField(editable=False, help_text='When it goes on by itself, or was resumed; empty: never.', null=True),
        ),
        migrations.AddIndex(
            model_name='workflow',
            index=models.Index(fields=['status', '-enqueued_at', '-id'], name='workflow_status_newest'),
        ),
    ]
