from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tasks_app", "0013_about"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedulerules",
            name="about",
            field=models.CharField(
                editable=False, help_text="The object that its runs are about.", max_length=200, null=True
            ),
        ),
    ]
