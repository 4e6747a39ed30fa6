from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0009_node_power"),
    ]

    operations = [
        migrations.AddField(
            model_name="agent",
            name="moving_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when another on node `moving_to` is to take its place.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="agent",
            name="moving_to",
            field=models.CharField(blank=True, default="", max_length=63),
        ),
        migrations.AddField(
            model_name="deployment",
            name="desired_rps",
            field=models.FloatField(
                blank=True,
                help_text="What `desired` is to do in requests/s, where speeds are known.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="moves",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="When agents of it were moved lately (Unix seconds).",
            ),
        ),
        migrations.AddField(
            model_name="deployment",
            name="placement",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="What people set of where its agents go; the rest is default.",
            ),
        ),
    ]
