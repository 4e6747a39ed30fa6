from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0007_what_decisions_keep"),
    ]

    operations = [
        migrations.AddField(
            model_name="agent",
            name="parked_at",
            field=models.DateTimeField(blank=True, help_text="When it was told to park.", null=True),
        ),
    ]
