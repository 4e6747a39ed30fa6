from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0005_how_fast_boxes_are"),
    ]

    operations = [
        migrations.AddField(
            model_name="deployment",
            name="scaling",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="What people set of how it scales, by key; the rest is default.",
            ),
        ),
    ]
