from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tasks_app", "0012_workers"),
    ]

    operations = [
        migrations.AddField(
            model_name="taskrun",
            name="about",
            field=models.CharField(
                help_text="The object that it is about: `shop.order:48213`.", max_length=200, null=True
            ),
        ),
        migrations.AddIndex(
            model_name="taskrun",
            index=models.Index(
                condition=models.Q(("about__isnull", False)),
                fields=["about", "-enqueued_at", "-id"],
                name="run_about",
            ),
        ),
    ]
