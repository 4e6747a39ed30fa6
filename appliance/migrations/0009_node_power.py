from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0008_parked_agents"),
    ]

    operations = [
        migrations.CreateModel(
            name="PowerRules",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sleep_after_s", models.PositiveIntegerField(default=600)),
                ("sleep_how", models.CharField(default="suspend", max_length=16)),
                ("headroom_nodes", models.PositiveIntegerField(default=1)),
                ("headroom_agents", models.PositiveIntegerField(default=0)),
                ("stay_awake_s", models.PositiveIntegerField(default=300)),
                ("wake_timeout_s", models.PositiveIntegerField(default=180)),
                ("changes_per_10min", models.PositiveIntegerField(default=4)),
                ("changes_per_tick", models.PositiveIntegerField(default=2)),
            ],
        ),
        migrations.AddField(
            model_name="node",
            name="awake_since",
            field=models.DateTimeField(blank=True, help_text="When it was last woken.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="idle_since",
            field=models.DateTimeField(blank=True, help_text="Since when nothing is on it.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="power_changes",
            field=models.JSONField(
                blank=True, default=list, help_text="When the loop changed its power lately, Unix seconds."
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="power_how",
            field=models.CharField(
                blank=True,
                default="",
                help_text="suspend or power_off, where that was ordered.",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="power_stage",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "None"),
                    ("leaving", "Leaving"),
                    ("sleeping", "Sleeping"),
                    ("asleep", "Asleep"),
                    ("waking", "Waking"),
                ],
                default="",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="power_stage_at",
            field=models.DateTimeField(blank=True, help_text="Since when it is that far.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="power_tries",
            field=models.PositiveSmallIntegerField(default=0, help_text="How often it was told so."),
        ),
        migrations.AddField(
            model_name="node",
            name="power_wanted",
            field=models.CharField(
                blank=True,
                choices=[("", "None"), ("asleep", "Asleep"), ("awake", "Awake")],
                default="",
                max_length=16,
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="power",
            field=models.CharField(
                blank=True, default="", help_text="How it is woken: wol:MAC or exec:NAME.", max_length=64
            ),
        ),
    ]
