from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tasks_app', '0005_keeping'),
    ]

    operations = [
        migrations.AddField(
            model_name='tasklimit',
            name='declared',
            field=models.JSONField(help_text='What the code of the task said last; somebody may have changed the fields since.', null=True),
        ),
        migrations.AddField(
            model_name='tasklimit',
            name='declared_at',
            field=models.DateTimeField(help_text='When it did, or when newer code said nothing any more.', null=True),
        ),
    ]
