from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0007_what_decisions_keep"),
    ]

    operations = []
