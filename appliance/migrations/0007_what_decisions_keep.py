from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0006_how_deployments_scale"),
    ]

    operations = [
        migrations.CreateModel(
            name="RecordedTick",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.FloatField(db_index=True)),
                ("body", models.BinaryField()),
            ],
            options={"ordering": ("id",)},
        ),
        migrations.AddField(
            model_name="decision",
            name="kind",
            field=models.CharField(blank=True, default="", help_text="The sort of reason.", max_length=32),
        ),
        migrations.AddField(
            model_name="decision",
            name="dry_run",
            field=models.BooleanField(default=False, help_text="Only what would have been done."),
        ),
        migrations.AddField(
            model_name="decision",
            name="policy",
            field=models.JSONField(default=dict, help_text="What is set otherwise than by default."),
        ),
        migrations.AddField(
            model_name="decision",
            name="gateways",
            field=models.JSONField(default=list, help_text="The gateway processes that were heard."),
        ),
        migrations.AddField(
            model_name="deployment",
            name="would",
            field=models.PositiveIntegerField(
                blank=True, help_text="In a dry run: what `desired` would be by its load.", null=True
            ),
        ),
    ]
