from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0010_where_agents_go"),
    ]

    operations = [
        migrations.AddField(
            model_name="deployment",
            name="lacking_since",
            field=models.FloatField(
                blank=True,
                help_text="Since when load asks for agents that cannot be added (Unix seconds).",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="profile",
            name="full_batch_size",
            field=models.PositiveIntegerField(
                default=0, help_text="The batch that does most, whatever the latency budget; 0: not known."
            ),
        ),
        migrations.AddField(
            model_name="profile",
            name="full_rps",
            field=models.FloatField(default=0.0, help_text="What it does with that; 0: not known."),
        ),
    ]
