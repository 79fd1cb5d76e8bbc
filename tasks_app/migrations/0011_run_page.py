import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tasks_app", "0010_figures"),
    ]

    operations = [
        migrations.AddField(
            model_name="taskrun",
            name="again_of",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                help_text="The run whose call somebody took, and perhaps changed, to send this one.",
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="sent_again",
                to="tasks_app.taskrun",
            ),
        ),
        migrations.AddIndex(
            model_name="taskrun",
            index=models.Index(
                condition=models.Q(("again_of__isnull", False)), fields=["again_of"], name="run_again_of"
            ),
        ),
    ]
