from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0008_parked_agents"),
    ]

    operations = []
